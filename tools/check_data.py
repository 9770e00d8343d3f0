"""Check a data set before training on it: counts, damage, duplicates across train and val, classes, masks.

python tools/check_data.py DATA [--task classification|segmentation] [--report FILE.html]

DATA is what DATASET_PATH (class folders) or SegFormer's data_path names, a folder or a .tar or .zip file. The exit
status is 1 where training would fail or pictures of train are in val too, 2 where DATA is no data set.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from src.engine.config import Parser, require_data
from src.engine.data.tree import open_tree
from src.engine.errors import UsageError, reports_errors
from src.engine.io import files
from src.inspection.data import classification, findings, segmentation
from src.segformer.data.dataset import CITY_IMAGES, IMAGES, MASKS

TASKS = CLASSES, PIXELS = ("classification", "segmentation")
OF_MASKS = {"class_list": "", "reduce_zero_label": False, "on_missing_label": "error"}  # flags that classes lack


def arguments(argv: list[str]) -> argparse.Namespace:
    """Parse and check the command line; raises UsageError."""
    parser = Parser(prog="python tools/check_data.py", description=__doc__)
    parser.add_argument("data", metavar="DATA", help="folder or archive of the data set")
    parser.add_argument("--task", choices=TASKS, help="default: what the folders in DATA look like")
    parser.add_argument("--report", type=Path, metavar="FILE.html", help="write tables and pictures into this file too")
    parser.add_argument("--class_list", default="", metavar="FILE", help="segmentation: as the key of that name")
    parser.add_argument("--reduce_zero_label", action="store_true", help="segmentation: as that key, when True")
    for key, kinds in (("on_bad_image", ("skip", "error")), ("on_missing_label", ("error", "skip"))):
        parser.add_argument(f"--{key}", choices=kinds, default=kinds[0], help="as training's key of that name")
    args = parser.parse_args(argv)
    require_data("DATA", args.data)
    if args.report is not None and args.report.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"report is {args.report}; it is written as HTML, so give --report FILE.html")
    return args


def task_of(data: str) -> str:
    """What the folders look like."""
    root = open_tree(data)
    is_pairs = root.has_folder(CITY_IMAGES) or (root.has_folder(IMAGES) and root.has_folder(MASKS))
    return PIXELS if is_pairs else CLASSES


def refuse_flags_of_masks(args: argparse.Namespace) -> None:
    """Raise UsageError where class folders come with what is about masks."""
    wrong = next((flag for flag, unset in OF_MASKS.items() if getattr(args, flag) != unset), None)
    if wrong is not None:
        raise UsageError(f"--{wrong} is about masks and {args.data} is checked for {CLASSES}; leave it out")


@reports_errors
def main(argv: list[str]) -> int:
    args = arguments(argv)
    if (args.task or task_of(args.data)) == CLASSES:
        refuse_flags_of_masks(args)
        checked = classification.check(args.data, args.on_bad_image)
    else:
        keys = (args.class_list, args.on_missing_label, args.on_bad_image, args.reduce_zero_label)
        checked = segmentation.check(args.data, *keys)
    print(findings.as_text(checked))
    if args.report is not None:
        files.write_text(args.report.expanduser(), findings.as_page(checked))
        print(f"report in {args.report}")
    return checked.status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
