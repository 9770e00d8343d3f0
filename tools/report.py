"""Report a run as one HTML file that needs no network: curves, configuration, versions, and what it does on pictures.

python tools/report.py RUN_FOLDER... [--data_path VAL] [--report FILE.html]

VAL are labelled pictures as eval.py takes them: class folders, or SegFormer's data folder. Several runs of one model
are shown side by side, with the differences of their configurations.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from src.engine import environment
from src.engine.config import Parser, expanded, require_data
from src.engine.errors import UsageError, reports_errors
from src.engine.io import files
from src.inspection.run import run_report

NAME = "report.html"


def arguments(argv: list[str]) -> argparse.Namespace:
    """Parse and check the command line; raises UsageError."""
    parser = Parser(prog="python tools/report.py", description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN_FOLDER", help="what save_checkpoint_path named")
    parser.add_argument("--data_path", default="", metavar="VAL", help="labelled pictures to try the checkpoints on")
    parser.add_argument(
        "--report", type=Path, metavar="FILE.html", help=f"file to write (default: {NAME} in the first run folder)"
    )
    args = parser.parse_args(argv)
    args.runs = [expanded(run) for run in args.runs]
    args.report = args.runs[0] / NAME if args.report is None else args.report.expanduser()
    missing = next((run for run in args.runs if not run.is_dir()), None)
    if missing is not None:
        raise UsageError(f"{missing} is not a folder; give the one that save_checkpoint_path names")
    if args.report.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"report is {args.report}; it is written as HTML, so give --report FILE.html")
    if args.data_path:
        require_data("data_path", args.data_path)
    return args


@reports_errors
def main(argv: list[str]) -> int:
    args = arguments(argv)
    environment.prepare()
    files.write_text(args.report, run_report.report(args.runs, args.data_path))
    print(f"report in {args.report}, {args.report.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
