"""Draw street scenes in the folders of Cityscapes: pictures and polygon annotations, nothing downloaded.

python examples/make_street_scenes.py OUT [--train 64 --val 16 --size 256x512 --seed 1 --things all|large]
python tools/convert_dataset.py OUT           turns the polygons into the masks that training reads

The same arguments give the same scenes. An interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

import numpy as np

from src.engine.config import Parser
from src.engine.errors import UsageError, ZooError
from src.engine.io.files import write_text
from src.segformer.data.polygons import POLYGONS
from src.segformer.predicting.pictures import save_png
from street_scenes.scene import draw

NOTE = "street_scenes.json"  # says with which arguments a folder was drawn
TOWNS = {"train": "aldorf", "val": "birkheim"}
SMALLEST, LARGEST = 64, 4096  # pixels of a side


def arguments(argv: list[str]) -> argparse.Namespace:
    """Parse and check the command line; raises UsageError."""
    parser = Parser(prog="python examples/make_street_scenes.py", description=__doc__)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write to")
    parser.add_argument("--train", type=int, default=64, help="scenes to train on (default 64)")
    parser.add_argument("--val", type=int, default=16, help="scenes to evaluate on (default 16)")
    parser.add_argument("--size", default="256x512", metavar="HxW", help="height x width in pixels (default 256x512)")
    parser.add_argument("--seed", type=int, default=1, help="other seeds give other scenes (default 1)")
    parser.add_argument(
        "--things",
        choices=("all", "large"),
        default="all",
        help="large: no posts, signs, lights, fences, bicycles, and nobody far away; learned in minutes (default all)",
    )
    args = parser.parse_args(argv)
    sides = re.fullmatch(r"(\d{1,6})x(\d{1,6})", args.size)
    args.height, args.width = (int(side) for side in sides.groups()) if sides else (0, 0)
    if min(args.height, args.width) < SMALLEST or max(args.height, args.width) > LARGEST:
        raise UsageError(f"size is {args.size!r}; it has to be HEIGHTxWIDTH, each from {SMALLEST} to {LARGEST}")
    for name in ("train", "val", "seed"):
        if getattr(args, name) < 0:
            raise UsageError(f"{name} is {getattr(args, name)}; it has to be at least 0")
    args.out = args.out.expanduser()
    return args


def take_folder(out: Path, note: str) -> None:
    """Mark the folder as ours, or refuse one that holds other things."""
    path = out / NOTE
    if path.is_file() and path.read_text(encoding="utf-8") == note:
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} holds other files or other scenes; give a folder that is new or empty")
    write_text(path, note)


def write_scene(out: Path, split: str, number: int, args: argparse.Namespace) -> bool:
    """Draw one scene, unless it is there already (its annotation is written last)."""
    town = TOWNS[split]
    stem = f"{town}_{number:06d}_000019"
    picture_file = out / "leftImg8bit" / split / town / f"{stem}_leftImg8bit.png"
    annotation_file = out / "gtFine" / split / town / f"{stem}_gtFine{POLYGONS}"
    if annotation_file.is_file() and picture_file.is_file():
        return False
    rng = np.random.default_rng([args.seed, list(TOWNS).index(split), number])
    picture, annotation = draw(rng, args.height, args.width, small=args.things == "all")
    save_png(picture_file, picture)
    write_text(annotation_file, json.dumps(annotation))
    return True


def run(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    size = f"{args.height}x{args.width}"
    values = {"train": args.train, "val": args.val, "size": size, "seed": args.seed, "things": args.things}
    take_folder(args.out, json.dumps(values) + "\n")
    todo = [(split, number) for split in TOWNS for number in range(getattr(args, split))]
    drawn = sum(write_scene(args.out, split, number, args) for split, number in tqdm(todo, unit="scene"))
    print(f"{drawn} scenes drawn, {len(todo) - drawn} were there; next: python tools/convert_dataset.py {args.out}")


def main(argv: list[str]) -> int:
    try:
        run(arguments(argv))
        return 0
    except (ZooError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return getattr(error, "status", 1)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
