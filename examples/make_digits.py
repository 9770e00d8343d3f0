"""Write scikit-learn's handwritten digits as an image folder: train/<digit>/*.png (1,437), val/<digit>/*.jpg (360).

python examples/make_digits.py OUT

The digits are real: 8x8 pixels, 16 grey levels, by 43 writers (UCI, "Optical Recognition of Handwritten Digits").
Every fifth one is held out.
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

SIZE = 32  # pixels; the digits are enlarged from 8x8
MARKER = ".complete"


def write(out: Path) -> tuple[int, int]:
    """Write all files; returns how many are for training and how many are held out."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    counts = {"train": 0, "val": 0}
    for index, (pixels, label) in enumerate(zip(digits.images, digits.target)):
        split, suffix = ("val", "jpg") if index % 5 == 0 else ("train", "png")
        folder = out / split / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        grey = np.clip(pixels * 16, 0, 255).astype(np.uint8)
        picture = cv2.resize(grey, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
        encoded, data = cv2.imencode(f".{suffix}", picture)
        if not encoded:
            raise OSError(f"cannot encode digit {index} as {suffix}")
        (folder / f"{index:04d}.{suffix}").write_bytes(data.tobytes())
        counts[split] += 1
    (out / MARKER).touch()
    return counts["train"], counts["val"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write to")
    out = parser.parse_args().out
    if (out / MARKER).is_file():
        print(f"digits are in {out} already")
        return 0
    try:
        train, val = write(out)
    except OSError as error:
        print(f"error: cannot write the digits to {out}: {error}; choose another folder", file=sys.stderr)
        return 1
    print(f"{train} digits in {out / 'train'}, {val} in {out / 'val'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
