"""Measure MobileNetV2 on this machine: training, inference, data pipeline and memory, next to other software.

python -m benchmarks.mobilenetv2 [--batch 32] [--size 224] [--rounds 3] [--images FOLDER] [--out FOLDER]
python -m benchmarks.mobilenetv2 --batch 2 --size 32 --rounds 1 --steps 1      (does everything start?)
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.contenders import SECTIONS
from benchmarks.flag_types import positive, some_of
from src.engine.config import Parser
from src.engine.errors import UsageError, ZooError


def parser() -> argparse.ArgumentParser:
    flags = Parser(prog="python -m benchmarks.mobilenetv2", description=__doc__.split("\n")[0], allow_abbrev=False)
    flags.add_argument("--batch", type=positive, default=32, help="images per batch (default 32)")
    flags.add_argument("--size", type=positive, default=224, help="image height and width in pixels (default 224)")
    flags.add_argument("--rounds", type=positive, default=3, help="how often each contender runs (default 3)")
    flags.add_argument("--steps", type=positive, default=8, help="timed steps per run (default 8; data: four times)")
    flags.add_argument("--images", metavar="FOLDER", help="folder of class folders for the data section")
    flags.add_argument("--out", type=Path, metavar="FOLDER", help="also write mobilenetv2.json and mobilenetv2.md")
    flags.add_argument("--only", type=some_of(SECTIONS), default=list(SECTIONS), help=f"some of {','.join(SECTIONS)}")
    # How a round calls its contenders; not for users.
    flags.add_argument("--worker", help=argparse.SUPPRESS)
    flags.add_argument("--threads", type=positive, default=1, help=argparse.SUPPRESS)
    flags.add_argument("--width", type=float, default=1.0, help=argparse.SUPPRESS)
    flags.add_argument("--onnx", type=Path, help=argparse.SUPPRESS)
    return flags


def main(argv: list[str]) -> int:
    """Returns the exit status: 0, 1 where a contender failed, 2 for a wrong command line."""
    try:
        arguments = parser().parse_args(argv)
        # Imported late: whatever is loaded here would count as memory of the contenders.
        if arguments.worker:
            from benchmarks import workers

            workers.run(arguments)
            return 0
        from benchmarks import rounds

        if arguments.images and not Path(arguments.images).expanduser().is_dir():
            raise UsageError(f"--images {arguments.images} is not a folder; give a folder of class folders")
        return rounds.measure(arguments)
    except ZooError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
