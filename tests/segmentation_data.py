"""Tiny data sets for SegFormer's tests, and a configuration of just the fields that the data side reads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

CLASS_FILE = "index,name,red,green,blue,weight\n0,street,128,64,128,1.5\n1,house,70,70,70,\n2,tree,0,200,0,0.5\n"


@dataclass(frozen=True)
class DataConfig:
    base_size: tuple[int, int] = (32, 64)
    crop_size: tuple[int, int] = (32, 48)
    img_norm_mean: tuple[float, ...] = (123.675, 116.28, 103.53)
    img_norm_std: tuple[float, ...] = (58.395, 57.12, 57.375)
    class_num: int = 3
    dataset_ignore_label: int = 255
    dataset_ignore_image: float = 0.0
    seed: int = 1
    batch_size: int = 2
    accumulate: int = 1
    native_size: bool = False
    dataset_num_parallel_workers: int = 2


def mask_and_image(rng: np.random.Generator, height: int, width: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """A mask of a few boxes and an image whose colours follow it."""
    mask = np.zeros((height, width), np.uint8)
    for _ in range(6):
        top, left = rng.integers(height), rng.integers(width)
        mask[top : top + height // 2, left : left + width // 2] = rng.integers(classes)
    mask[: height // 8] = 255
    image = rng.integers(0, 60, (height, width, 3), dtype=np.uint8) + (mask % 8 * 24)[..., None]
    return mask, image


def write_generic(root: Path, counts: dict[str, int], size: tuple[int, int] = (40, 80)) -> Path:
    """images/<split>/sub dir/N.jpg, masks/<split>/sub dir/N.png and classes.csv with three classes."""
    rng = np.random.default_rng(0)
    for split, count in counts.items():
        for number in range(count):
            mask, image = mask_and_image(rng, *size, classes=3)
            for folder, suffix, picture in (("images", "jpg", image), ("masks", "png", mask)):
                path = root / folder / split / "sub dir" / f"{number:02d}.{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), picture)
    (root / "classes.csv").write_text(CLASS_FILE)
    return root


def write_city(
    root: Path, count: int, split: str = "train", size: tuple[int, int] = (32, 64), with_images: bool = True
) -> Path:
    """A Cityscapes tree of images and polygon annotations, not converted yet."""
    rng = np.random.default_rng(0)
    height, width = size
    for number in range(count):
        stem = f"ulm_{number:06d}_000019"
        image = root / "leftImg8bit" / split / "ulm" / f"{stem}_leftImg8bit.png"
        annotation = root / "gtFine" / split / "ulm" / f"{stem}_gtFine_polygons.json"
        for path in (image, annotation):
            path.parent.mkdir(parents=True, exist_ok=True)
        if with_images:
            cv2.imwrite(str(image), rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        objects = [
            {"label": "road", "polygon": [[0, height // 2], [width, height // 2], [width, height], [0, height]]},
            {"label": "sky", "polygon": [[0, 0], [width, 0], [width, height // 4], [0, height // 4]]},
            {"label": "cargroup", "polygon": [[5, 10], [20, 10], [20 + number, 25], [5, 25]]},
        ]
        annotation.write_text(json.dumps({"imgHeight": height, "imgWidth": width, "objects": objects}))
    return root
