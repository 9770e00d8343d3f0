"""MobileNetV2's transforms: what happens to an image in training and in evaluation. No MindSpore here.

The 310 application repeats the evaluation transform; MEAN and STD are its defaults, crop_pct is in exported files.
"""

from __future__ import annotations

import cv2
import numpy as np

from src.classification.classifier import Transforms
from src.engine.data import augment, images
from src.mobilenetv2.config import Config

MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)  # ImageNet, RGB, of grey values 0..255
STD = (0.229 * 255, 0.224 * 255, 0.225 * 255)
TABLES = [((np.arange(256) - mean) / std).astype(np.float32) for mean, std in zip(MEAN, STD)]
MAX_ASPECT = 100  # a thinner picture would take gigabytes when its shorter side is enlarged


def normalise(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 RGB -> (3, H, W) float32 with mean 0 and standard deviation 1 over ImageNet."""
    planes = np.empty((3, *image.shape[:2]), np.float32)
    for channel, plane in enumerate(cv2.split(image)):
        planes[channel] = cv2.LUT(plane, TABLES[channel])
    return planes


def eval_transform(image: np.ndarray, cfg: Config) -> np.ndarray:
    """(H, W, 3) uint8 -> (3, height, width) float32: shorter side to input / crop_pct, centre crop, normalise."""
    return normalise(centred(image, (cfg.image_height, cfg.image_width), cfg.crop_pct))


def centred(image: np.ndarray, size: tuple[int, int], crop_pct: float) -> np.ndarray:
    """The middle of the image, as (height, width, 3) of `size`. Raises BadImage for a strip."""
    longer, shorter = max(image.shape[:2]), min(image.shape[:2])
    if longer > MAX_ASPECT * shorter:
        raise images.BadImage(f"{image.shape[1]}x{image.shape[0]} pixels, one side over {MAX_ASPECT} times the other")
    return augment.center_crop(augment.resize_shorter_side(image, round(max(size) / crop_pct)), size)


def train_transform(image: np.ndarray, rng: np.random.Generator, cfg: Config) -> np.ndarray:
    """(H, W, 3) uint8 -> (3, height, width) float32: random crop, flip, colour jitter, policy, normalise."""
    size = (cfg.image_height, cfg.image_width)
    if cfg.crop_padding:
        image = augment.random_shift(centred(image, size, cfg.crop_pct), rng, cfg.crop_padding)
    else:
        image = augment.random_resized_crop(image, rng, size, scale=(cfg.crop_min_scale, 1.0))
    image = augment.horizontal_flip(image, rng, cfg.flip_probability)
    if cfg.color_jitter:
        image = augment.color_jitter(image, rng, cfg.color_jitter, cfg.color_jitter, cfg.color_jitter)
    if cfg.auto_augment == "randaugment":
        image = augment.rand_augment(image, rng)
    elif cfg.auto_augment == "trivialaugment":
        image = augment.trivial_augment(image, rng)
    return normalise(image)


# The last number is 1 / crop_pct of the features that were cached before that was a key, which so stay good.
TRANSFORMS = Transforms(train_transform, eval_transform, (MEAN, STD, 256 / 224))
