"""JPEG files like photographs of a data set, for machines that have none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

FILES = 256
WIDTH, HEIGHT = 500, 375  # about the size of most ImageNet files
QUALITY = 90
SMALLEST_CUT = 0.75  # of the largest one that fits


def write_photos(folder: Path, count: int = FILES) -> str:
    """Write `count` cuts of scikit-learn's two photographs, one class each; returns a sentence about them."""
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(picture) for picture in load_sample_images().images]
    for number in range(count):
        label = number % len(pictures)
        picture = pictures[label]
        scale = min(picture.width / WIDTH, picture.height / HEIGHT) * rng.uniform(SMALLEST_CUT, 1)
        left = rng.uniform(0, picture.width - scale * WIDTH)
        top = rng.uniform(0, picture.height - scale * HEIGHT)
        box = (left, top, left + scale * WIDTH, top + scale * HEIGHT)
        target = folder / f"photograph{label}" / f"{number:03d}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        picture.resize((WIDTH, HEIGHT), Image.BICUBIC, box=box).save(target, quality=QUALITY)
    return (
        f"data: no --images given, so {count} generated JPEG files of {WIDTH} x {HEIGHT} pixels, "
        "cut from scikit-learn's two photographs"
    )
