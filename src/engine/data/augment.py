"""Image augmentations as pure functions of an image and a random generator.

Images are uint8 RGB arrays of shape (height, width, 3). All randomness comes from the `numpy.random.Generator` passed
in, so a sample's augmentation follows from its key and not from the worker thread that happens to run it. Almost all
pixel work is done by OpenCV, which releases the GIL. A function that has nothing to do may return its input, so treat
inputs and results as read-only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

# Pillow (and so torchvision) truncates blended values where OpenCV rounds them; shifting by a half turns one into the
# other. It is a little less than a half because whole numbers would become ties, which are rounded to even.
_TRUNCATE = -0.499

# ImageFilter.SMOOTH of Pillow, the blurred end of its sharpness scale.
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13


def crop_box(
    height: int,
    width: int,
    rng: np.random.Generator,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> tuple[int, int, int, int]:
    """Draw the box (top, left, crop height, crop width) of a random resized crop, in pixels.

    The area is uniform in `scale` (a fraction of the image's) and the aspect ratio width / height is log-uniform in
    `ratio`. After ten boxes that do not fit, the box is the largest centred one whose ratio is within bounds, as in
    torchvision and MindData. The crop was introduced by https://arxiv.org/abs/1409.4842.
    """
    log_low, log_high = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(10):
        area = height * width * (scale[0] + (scale[1] - scale[0]) * rng.random())
        aspect = math.exp(log_low + (log_high - log_low) * rng.random())
        crop_width = round(math.sqrt(area * aspect))
        crop_height = round(math.sqrt(area / aspect))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top = int(rng.integers(height - crop_height + 1))
            left = int(rng.integers(width - crop_width + 1))
            return top, left, crop_height, crop_width
    crop_height, crop_width = height, width
    if width < height * ratio[0]:
        crop_height = max(1, round(width / ratio[0]))
    elif width > height * ratio[1]:
        crop_width = max(1, round(height * ratio[1]))
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width


def random_resized_crop(
    image: np.ndarray,
    rng: np.random.Generator,
    size: tuple[int, int],
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> np.ndarray:
    """Cut a random box (see `crop_box`) out of the image and resize it to `size` = (height, width)."""
    top, left, height, width = crop_box(image.shape[0], image.shape[1], rng, scale, ratio)
    return _resize(image[top : top + height, left : left + width], *size)


def random_shift(image: np.ndarray, rng: np.random.Generator, pixels: int) -> np.ndarray:
    """Move the image by up to `pixels` in each direction; what comes in from outside is its mirrored border."""
    height, width = image.shape[:2]
    top, left = (int(offset) for offset in rng.integers(2 * pixels + 1, size=2))
    padded = cv2.copyMakeBorder(image, pixels, pixels, pixels, pixels, cv2.BORDER_REFLECT_101)
    return np.ascontiguousarray(padded[top : top + height, left : left + width])


def _resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize to (height, width), antialiased where that matters.

    OpenCV's bilinear filter always reads 2x2 source pixels. When shrinking up to twofold these still touch every
    source pixel, so it is antialiased well enough, and it is the fastest filter; beyond that it skips pixels, and
    INTER_AREA, which averages all of them, is needed. OpenCV averages only where both axes shrink, hence the condition
    on both.
    """
    shrinks = image.shape[0] > 2 * height and image.shape[1] > 2 * width
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def resize_shorter_side(image: np.ndarray, size: int) -> np.ndarray:
    """Resize so that the shorter side is `size` pixels; the longer one keeps the aspect ratio and is rounded down."""
    height, width = image.shape[:2]
    if height <= width:
        return _resize(image, size, int(size * width / height))
    return _resize(image, int(size * height / width), size)


def center_crop(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Cut the central `size` = (height, width) out of the image, which is padded with zeros where it is smaller."""
    height, width = size
    pad_y, pad_x = max(height - image.shape[0], 0), max(width - image.shape[1], 0)
    if pad_y or pad_x:
        top, left = pad_y // 2, pad_x // 2
        image = cv2.copyMakeBorder(image, top, pad_y - top, left, pad_x - left, cv2.BORDER_CONSTANT, value=(0, 0, 0))
    top, left = round((image.shape[0] - height) / 2), round((image.shape[1] - width) / 2)
    return np.ascontiguousarray(image[top : top + height, left : left + width])


def horizontal_flip(image: np.ndarray, rng: np.random.Generator, probability: float = 0.5) -> np.ndarray:
    """Mirror left and right with the given probability."""
    return cv2.flip(image, 1) if rng.random() < probability else image


def _blend(image: np.ndarray, other: np.ndarray, factor: float, constant: float = 0.0) -> np.ndarray:
    """Return factor * image + (1 - factor) * other + constant, clipped and truncated to uint8 as Pillow does.

    This costs a fifth of cv2.LUT, which is not vectorised for three channels.
    """
    return cv2.addWeighted(image, factor, other, 1.0 - factor, constant + _TRUNCATE)


def _scale(image: np.ndarray, factor: float, constant: float) -> np.ndarray:
    """Return factor * image + constant, clipped and truncated to uint8."""
    return cv2.addWeighted(image, factor, image, 0.0, constant + _TRUNCATE)


def adjust_brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """Blend with black: factor 0 is black, 1 the image (Pillow's ImageEnhance.Brightness)."""
    return _scale(image, factor, 0.0)


def adjust_contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Blend with the rounded mean of the grey image: factor 0 is flat, 1 the image (ImageEnhance.Contrast)."""
    mean = int(cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0] + 0.5)
    return _scale(image, factor, (1.0 - factor) * mean)


def adjust_saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """Blend with the grey image (weights .299, .587, .114): factor 0 is grey, 1 the image (ImageEnhance.Color)."""
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return _blend(image, grey, factor)


def adjust_sharpness(image: np.ndarray, factor: float) -> np.ndarray:
    """Blend with a smoothed image whose outermost pixels stay: factor 0 is smooth, 1 the image, 2 sharpened."""
    smooth = image.copy()
    if min(image.shape[:2]) > 2:
        smooth[1:-1, 1:-1] = cv2.filter2D(image, -1, _SMOOTH)[1:-1, 1:-1]
    return _blend(image, smooth, factor)


def color_jitter(
    image: np.ndarray,
    rng: np.random.Generator,
    brightness: float = 0.4,
    contrast: float = 0.4,
    saturation: float = 0.4,
) -> np.ndarray:
    """Change brightness, contrast and saturation in random order.

    Each factor is uniform in [max(0, 1 - x), 1 + x] for the strength x given, see https://arxiv.org/abs/1312.5402.
    """
    draws = rng.random(3)
    for index in rng.permutation(3):
        strength = (brightness, contrast, saturation)[index]
        low = max(0.0, 1.0 - strength)
        factor = low + (1.0 + strength - low) * float(draws[index])
        image = (adjust_brightness, adjust_contrast, adjust_saturation)[index](image, factor)
    return image


def _identity(image: np.ndarray, magnitude: float) -> np.ndarray:
    return image


def _warp(image: np.ndarray, matrix: list[list[float]] | np.ndarray) -> np.ndarray:
    """Sample the image bilinearly at matrix @ (x, y, 1) for every output pixel; black outside."""
    height, width = image.shape[:2]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, np.array(matrix), (width, height), flags=flags, borderMode=cv2.BORDER_CONSTANT)


def _shear_x(image: np.ndarray, magnitude: float) -> np.ndarray:
    # Pixel centres lie at half coordinates, and the row through the origin at the top edge stays in place.
    return _warp(image, [[1, magnitude, magnitude / 2], [0, 1, 0]])


def _shear_y(image: np.ndarray, magnitude: float) -> np.ndarray:
    return _warp(image, [[1, 0, 0], [magnitude, 1, magnitude / 2]])


def _translate_x(image: np.ndarray, magnitude: float) -> np.ndarray:
    """Move right by the whole part of `magnitude` pixels."""
    shift, width = int(magnitude), image.shape[1]
    moved = np.zeros_like(image)
    moved[:, max(shift, 0) : max(width + shift, 0)] = image[:, max(-shift, 0) : max(width - shift, 0)]
    return moved


def _translate_y(image: np.ndarray, magnitude: float) -> np.ndarray:
    """Move down by the whole part of `magnitude` pixels."""
    shift, height = int(magnitude), image.shape[0]
    moved = np.zeros_like(image)
    moved[max(shift, 0) : max(height + shift, 0)] = image[max(-shift, 0) : max(height - shift, 0)]
    return moved


def _rotate(image: np.ndarray, magnitude: float) -> np.ndarray:
    """Turn counter-clockwise by `magnitude` degrees about the centre."""
    height, width = image.shape[:2]
    # The matrix is the inverse map, hence the negative angle.
    return _warp(image, cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), -magnitude, 1.0))


def _enhance(adjust: Callable[[np.ndarray, float], np.ndarray]) -> Callable[[np.ndarray, float], np.ndarray]:
    """Turn an adjustment by a factor into one by a signed magnitude, where 0 changes nothing."""
    return lambda image, magnitude: adjust(image, 1.0 + magnitude)


def _posterize(image: np.ndarray, magnitude: float) -> np.ndarray:
    """Keep the `magnitude` highest bits of every value."""
    return image & np.uint8(256 - (1 << (8 - int(magnitude))))


def _solarize(image: np.ndarray, magnitude: float) -> np.ndarray:
    """Invert the values that are at least `magnitude`; at 255 that still blackens pure white, as in torchvision."""
    return np.where(image < magnitude, image, 255 - image)


def _autocontrast(image: np.ndarray, magnitude: float) -> np.ndarray:
    """Stretch every channel to 0...255 (Pillow's ImageOps.autocontrast)."""
    table = np.empty((1, 256, 3), np.uint8)
    for channel in range(3):
        low, high, _, _ = cv2.minMaxLoc(cv2.extractChannel(image, channel))
        slope, shift = (255.0 / (high - low), low) if high > low else (1.0, 0.0)
        table[0, :, channel] = np.clip(np.arange(256) * slope - shift * slope, 0, 255)
    return cv2.LUT(image, table)


def _equalize(image: np.ndarray, magnitude: float) -> np.ndarray:
    """Make the values of every channel equally frequent (ImageOps.equalize; cv2.equalizeHist rounds otherwise)."""
    table = np.empty((1, 256, 3), np.uint8)
    for channel in range(3):
        histogram = cv2.calcHist([image], [channel], None, [256], [0, 256])[:, 0].astype(np.int64)
        step = (histogram.sum() - histogram[np.flatnonzero(histogram)[-1]]) // 255
        below = np.concatenate([[0], np.cumsum(histogram)[:-1]])
        table[0, :, channel] = np.clip((step // 2 + below) // step, 0, 255) if step else np.arange(256)
    return cv2.LUT(image, table)


class Space(NamedTuple):
    """What a magnitude range depends on: the policy (wide is TrivialAugment's) and the image's size in pixels."""

    wide: bool
    height: int
    width: int


class Operation(NamedTuple):
    """One augmentation: its function of image and magnitude, the magnitude at a level in [0, 1], and its symmetry."""

    apply: Callable[[np.ndarray, float], np.ndarray]
    magnitude: Callable[[float, Space], float]
    signed: bool


def _up_to(wide: float, narrow: float) -> Callable[[float, Space], float]:
    """Return a range from 0 to `wide` for TrivialAugment and to `narrow` for RandAugment."""
    return lambda level, space: level * (wide if space.wide else narrow)


def _none(level: float, space: Space) -> float:
    return 0.0


# The operations and ranges of TrivialAugmentWide and RandAugment in torchvision.transforms.
OPERATIONS: dict[str, Operation] = {
    "Identity": Operation(_identity, _none, False),
    "ShearX": Operation(_shear_x, _up_to(0.99, 0.3), True),
    "ShearY": Operation(_shear_y, _up_to(0.99, 0.3), True),
    "TranslateX": Operation(_translate_x, lambda level, s: level * (32 if s.wide else 150 / 331 * s.width), True),
    "TranslateY": Operation(_translate_y, lambda level, s: level * (32 if s.wide else 150 / 331 * s.height), True),
    "Rotate": Operation(_rotate, _up_to(135.0, 30.0), True),
    "Brightness": Operation(_enhance(adjust_brightness), _up_to(0.99, 0.9), True),
    "Color": Operation(_enhance(adjust_saturation), _up_to(0.99, 0.9), True),
    "Contrast": Operation(_enhance(adjust_contrast), _up_to(0.99, 0.9), True),
    "Sharpness": Operation(_enhance(adjust_sharpness), _up_to(0.99, 0.9), True),
    "Posterize": Operation(_posterize, lambda level, s: 8 - round(level * (6 if s.wide else 4)), False),
    "Solarize": Operation(_solarize, lambda level, s: 255.0 * (1.0 - level), False),
    "AutoContrast": Operation(_autocontrast, _none, False),
    "Equalize": Operation(_equalize, _none, False),
}
_NAMES = tuple(OPERATIONS)


def _apply(image: np.ndarray, rng: np.random.Generator, level: float, wide: bool) -> np.ndarray:
    """Apply an operation drawn uniformly, with a random sign where the operation has one."""
    operation = OPERATIONS[_NAMES[rng.integers(len(_NAMES))]]
    magnitude = operation.magnitude(level, Space(wide, image.shape[0], image.shape[1]))
    if operation.signed and rng.random() < 0.5:
        magnitude = -magnitude
    return operation.apply(image, magnitude)


def trivial_augment(image: np.ndarray, rng: np.random.Generator, bins: int = 31) -> np.ndarray:
    """Apply one operation at one of `bins` magnitudes, both uniform: TrivialAugmentWide, arxiv.org/abs/2103.10158."""
    level = int(rng.integers(bins)) / max(bins - 1, 1)
    return _apply(image, rng, level, wide=True)


def rand_augment(
    image: np.ndarray, rng: np.random.Generator, num_ops: int = 2, magnitude: int = 9, bins: int = 31
) -> np.ndarray:
    """Apply `num_ops` operations at the magnitude numbered `magnitude` of `bins`: arxiv.org/abs/1909.13719."""
    for _ in range(num_ops):
        image = _apply(image, rng, magnitude / max(bins - 1, 1), wide=False)
    return image


def mixup(
    images: np.ndarray, labels_onehot: np.ndarray, rng: np.random.Generator, alpha: float
) -> tuple[np.ndarray, np.ndarray]:
    """Average every sample with a partner from the batch, weighted by one Beta(alpha, alpha) draw.

    `images` is float32 (N, C, H, W) and `labels_onehot` float32 (N, K), one-hot or soft; new arrays of the same shapes
    are returned. See https://arxiv.org/abs/1710.09412.
    """
    weight = rng.beta(alpha, alpha)
    shift = _draw_shift(rng, len(images))
    mixed = images * weight
    mixed += np.roll(images, shift, axis=0) * (1 - weight)
    return mixed, _mix_labels(labels_onehot, shift, weight)


def cutmix(
    images: np.ndarray, labels_onehot: np.ndarray, rng: np.random.Generator, alpha: float
) -> tuple[np.ndarray, np.ndarray]:
    """Replace a box in every sample by the same box of a partner, and mix the labels by the area.

    The box covers 1 - Beta(alpha, alpha) of the image and is centred on a uniform pixel; what lies outside the image is
    cut off, and the labels follow the area that was pasted. Arrays as in `mixup`; https://arxiv.org/abs/1905.04899.
    """
    height, width = images.shape[2:]
    side = math.sqrt(1.0 - rng.beta(alpha, alpha))
    shift = _draw_shift(rng, len(images))
    top, bottom = _draw_span(rng, height, int(height * side))
    left, right = _draw_span(rng, width, int(width * side))
    mixed = images.copy()
    mixed[:, :, top:bottom, left:right] = np.roll(images[:, :, top:bottom, left:right], shift, axis=0)
    weight = 1.0 - (bottom - top) * (right - left) / (height * width)
    return mixed, _mix_labels(labels_onehot, shift, weight)


def _draw_shift(rng: np.random.Generator, count: int) -> int:
    """Draw how far the partners are rolled; batches are shuffled already, and no sample becomes its own partner."""
    return int(rng.integers(1, max(count, 2)))


def _draw_span(rng: np.random.Generator, length: int, extent: int) -> tuple[int, int]:
    """Return the start and stop of an interval around a uniform centre, clipped to the axis."""
    centre = int(rng.integers(length))
    return max(centre - extent // 2, 0), min(centre + extent // 2, length)


def _mix_labels(labels: np.ndarray, shift: int, weight: float) -> np.ndarray:
    return labels * weight + np.roll(labels, shift, axis=0) * (1 - weight)
