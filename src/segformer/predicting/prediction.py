"""From the network's coarse logits to one class per pixel of the original image. No MindSpore here.

`predict` maps images (N, 3, h, w) to logits (N, K, h / 4, w / 4), rounded up. A configuration is any object with the
fields base_size, img_norm_mean, img_norm_std, eval_mode, window, multi_scale, flip and size_divisor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np

from src.segformer.data.dataset import eval_transform
from src.segformer.variants import SMALLEST_SIDE

Predict = Callable[[np.ndarray], np.ndarray]


def resized(plane: np.ndarray, height: int, width: int) -> np.ndarray:
    """(h, w) float32 -> (height, width), bilinear with half-pixel centres, not antialiased."""
    if plane.shape == (height, width):
        return plane
    return cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR)


def padded(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """(3, h, w) -> (1, 3, height, width), filled below and right with 0, the mean colour."""
    whole = np.zeros((1, 3, height, width), np.float32)
    whole[0, :, : image.shape[1], : image.shape[2]] = image
    return whole


def whole_images(predict: Predict, views: Sequence[np.ndarray], divisor: int) -> list[Iterator[np.ndarray]]:
    """For each of several images of one size (3, h, w) the logits of each class at that size, computed at once."""
    _, height, width = views[0].shape
    size = [max(-(-side // divisor) * divisor, SMALLEST_SIDE) for side in (height, width)]
    logits = predict(np.concatenate([padded(view, *size) for view in views]))
    return [(resized(plane, *size)[:height, :width] for plane in planes) for planes in logits]


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """First pixels of windows that cover `length`; the last one ends at the border instead of behind it."""
    return [min(start, max(length - window, 0)) for start in range(0, max(length - window + stride, 1), stride)]


def sliding_windows(
    predict: Predict, image: np.ndarray, window: tuple[int, ...], stride: tuple[int, ...]
) -> Iterator[np.ndarray]:
    """Logits of each class at the size of the image (3, h, w), the mean of all windows that cover a pixel."""
    _, height, width = image.shape
    total: list[np.ndarray] = []  # of each class
    times = np.zeros((height, width), np.float32)
    for top in window_starts(height, window[0], stride[0]):
        for left in window_starts(width, window[1], stride[1]):
            box = np.s_[top : top + window[0], left : left + window[1]]
            part = image[(slice(None), *box)]
            logits = predict(padded(part, *window))[0]
            if not total:
                total = [np.zeros((height, width), np.float32) for _ in logits]
            for plane, sum_of_class in zip(logits, total):
                sum_of_class[box] += resized(plane, *window)[: part.shape[1], : part.shape[2]]
            times[box] += 1
    for sum_of_class in total:
        yield sum_of_class / times


def logits_of(predict: Predict, image: np.ndarray, cfg: Any) -> Iterator[np.ndarray]:
    """Logits (h, w) of each class for the network input (3, h, w)."""
    if cfg.eval_mode == "slide":
        return sliding_windows(predict, image, *cfg.window)
    return whole_images(predict, [image], cfg.size_divisor)[0]


def best_class(planes: Iterable[np.ndarray]) -> np.ndarray:
    """(H, W) uint8: number of the class whose plane (H, W) is highest, the first one where several are."""
    planes = iter(planes)
    best = next(planes).copy()
    found = np.zeros(best.shape, np.uint8)
    for index, plane in enumerate(planes, start=1):
        np.copyto(found, index, where=plane > best)
        np.maximum(best, plane, out=best)
    return found


def softmax(scores: np.ndarray) -> np.ndarray:
    """Over the first axis, in place."""
    scores -= scores.max(0)
    np.exp(scores, out=scores)
    scores /= scores.sum(0)
    return scores


def class_map(predict: Predict, picture: np.ndarray, image: np.ndarray, cfg: Any) -> np.ndarray:
    """Classes (H, W) uint8 of a picture (H, W, 3) uint8; `image` is its network input at the first of multi_scale.

    With several scales or the mirror image, the probabilities at the picture's size are averaged.
    """
    height, width = picture.shape[:2]
    if len(cfg.multi_scale) == 1 and not cfg.flip:
        return best_class(resized(plane, height, width) for plane in logits_of(predict, image, cfg))
    total = np.zeros((), np.float32)
    for index, scale in enumerate(cfg.multi_scale):
        view = image if index == 0 else eval_transform(picture, cfg, scale)
        for step in (1, -1) if cfg.flip else (1,):
            planes = logits_of(predict, np.ascontiguousarray(view[:, :, ::step]), cfg)
            scores = np.stack([resized(plane, height, width)[:, ::step] for plane in planes])
            total = total + softmax(scores)
    return best_class(total)


def class_maps(
    predict: Predict, pictures: Sequence[np.ndarray], views: Sequence[np.ndarray], cfg: Any
) -> list[np.ndarray]:
    """`class_map` of each of several pictures; whole images of one size are computed together."""
    averaged = cfg.flip or len(cfg.multi_scale) > 1 or cfg.eval_mode == "slide"
    if averaged or len({view.shape for view in views}) > 1:
        return [class_map(predict, picture, view, cfg) for picture, view in zip(pictures, views)]
    found = whole_images(predict, views, cfg.size_divisor)
    return [
        best_class(resized(plane, *picture.shape[:2]) for plane in planes) for picture, planes in zip(pictures, found)
    ]
