"""What happens to an image and its mask, as pure functions; a mask is never interpolated.

Images are (H, W, 3) uint8 RGB, masks (H, W) uint8 of class indices and the ignored value. All randomness comes from the
generator passed in. A function that has nothing to do may return its input, so treat inputs and results as read-only.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np

RATIO = (0.5, 2.0)  # of the resized image to base_size
CROP_TRIES, CROP_SHARE = 10, 0.75  # a crop is drawn again while one class covers this share of it
BRIGHTNESS, CONTRAST, SATURATION, HUE = 32.0, (0.5, 1.5), (0.5, 1.5), 18  # hue in OpenCV's steps of 2 degrees
HUES = 180
LEVELS = np.arange(256, dtype=np.float32)

Pair = tuple[np.ndarray, np.ndarray]


def fitted_size(height: int, width: int, box: Sequence[float]) -> tuple[int, int]:
    """Size (height, width) of an image whose longer side fits `box`'s longer one and whose shorter its shorter."""
    factor = min(max(box) / max(height, width), min(box) / min(height, width))
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


def resize_image(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear; where it shrinks more than twofold, averaged, because bilinear reads only 2x2 pixels."""
    if image.shape[:2] == (height, width):
        return image
    shrinks = image.shape[0] > 2 * height and image.shape[1] > 2 * width
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def resize_mask(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Nearest pixel by centres (OpenCV's INTER_NEAREST takes corners, which shifts the mask against the image)."""
    if mask.shape == (height, width):
        return mask
    return cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)


def box(cfg: Any, size: Sequence[int], scale: float) -> tuple[float, float]:
    """Height and width that an image of `size` (height, width) is fitted to: `scale` times base_size, or its own."""
    height, width = size if cfg.native_size else cfg.base_size
    return height * scale, width * scale


def random_resize(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator, base_size: Sequence[int]) -> Pair:
    """Resize both to fit `base_size` (height, width) times a uniform ratio, keeping the aspect."""
    ratio = rng.uniform(*RATIO)
    height, width = image.shape[:2]
    size = fitted_size(height, width, (base_size[0] * ratio, base_size[1] * ratio))
    return resize_image(image, *size), resize_mask(mask, *size)


def one_class_dominates(mask: np.ndarray, ignore: int) -> bool:
    """Whether one class covers CROP_SHARE of what is not ignored, or nothing is left."""
    counts = cv2.calcHist([mask], [0], None, [256], [0, 256])[:, 0]
    counts[ignore] = 0
    return counts.max() >= CROP_SHARE * counts.sum()


def random_crop(
    image: np.ndarray, mask: np.ndarray, rng: np.random.Generator, crop_size: Sequence[int], ignore: int
) -> Pair:
    """Cut the same random box out of both; a side that is smaller than the crop stays whole."""
    height, width = min(crop_size[0], mask.shape[0]), min(crop_size[1], mask.shape[1])
    for _ in range(CROP_TRIES):
        top, left = int(rng.integers(mask.shape[0] - height + 1)), int(rng.integers(mask.shape[1] - width + 1))
        box = np.s_[top : top + height, left : left + width]
        if mask.shape == (height, width) or not one_class_dominates(np.ascontiguousarray(mask[box]), ignore):
            break
    return np.ascontiguousarray(image[box]), np.ascontiguousarray(mask[box])


def random_flip(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Pair:
    """Mirror both left and right, every second time."""
    return (cv2.flip(image, 1), cv2.flip(mask, 1)) if rng.random() < 0.5 else (image, mask)


def grey_table(values: np.ndarray) -> np.ndarray:
    """Clip to 0..255 and cut off fractions, as a lookup table."""
    return np.clip(values, 0, 255).astype(np.uint8)


def photometric_distortion(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Brightness, contrast, saturation and hue, each every second time; contrast before or after the colours.

    Every step yields whole grey values, so a step on all channels alike is a table of 256 values, and two tables in a
    row are one.
    """
    brightness = rng.uniform(-BRIGHTNESS, BRIGHTNESS) if rng.random() < 0.5 else 0.0
    contrast = rng.uniform(*CONTRAST) if rng.random() < 0.5 else 1.0
    contrast_first = rng.random() < 0.5
    saturation = rng.uniform(*SATURATION) if rng.random() < 0.5 else 1.0
    hue = int(rng.integers(-HUE, HUE + 1)) if rng.random() < 0.5 else 0

    brighten, stretch = grey_table(LEVELS + brightness), grey_table(LEVELS * contrast)
    before = stretch[brighten] if contrast_first else brighten
    image = apply_table(image, before)
    if saturation != 1.0 or hue:
        colours = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        turned = ((np.arange(256) + hue) % HUES).astype(np.uint8)
        tables = np.stack([turned, grey_table(LEVELS * saturation), LEVELS.astype(np.uint8)], axis=-1)
        image = cv2.cvtColor(cv2.LUT(colours, tables[None]), cv2.COLOR_HSV2RGB)
    return image if contrast_first else apply_table(image, stretch)


def apply_table(image: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Look every channel up in one table (256,)."""
    if (table == LEVELS).all():
        return image
    return cv2.LUT(image.reshape(image.shape[0], -1), table).reshape(image.shape)


@lru_cache(maxsize=8)
def norm_tables(mean: tuple[float, ...], std: tuple[float, ...]) -> tuple[np.ndarray, ...]:
    return tuple(((np.arange(256) - m) / s).astype(np.float32) for m, s in zip(mean, std))


def normalise(
    image: np.ndarray,
    mean: Sequence[float],
    std: Sequence[float],
    size: Sequence[int] | None = None,
    pad_value: float = 0.0,
) -> np.ndarray:
    """(H, W, 3) uint8 -> (3, height, width) float32, padded below and right to `size` with `pad_value`.

    The padding is added to normalised values, so 0 is the mean colour.
    """
    height, width = image.shape[:2]
    planes = np.full((3, *(size or (height, width))), pad_value, np.float32)
    tables = norm_tables(tuple(mean), tuple(std))
    for channel, plane in enumerate(cv2.split(image)):
        planes[channel, :height, :width] = cv2.LUT(plane, tables[channel])
    return planes


def pad_mask(mask: np.ndarray, size: Sequence[int], ignore: int) -> np.ndarray:
    """(H, W) uint8 -> `size` int32, padded below and right with the ignored value."""
    padded = np.full(tuple(size), ignore, np.int32)
    padded[: mask.shape[0], : mask.shape[1]] = mask
    return padded
