"""Metrics that count what they saw. No MindSpore here."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Sequence

import numpy as np


class Classification:
    """Top-1, top-5 and the confusion matrix over batches; labels below 0 are not counted."""

    def __init__(self, classes: int):
        self.confusion = np.zeros((classes, classes), np.int64)  # row = true class, column = predicted class
        self.in_top5 = 0

    def update(self, scores: np.ndarray, label: np.ndarray) -> None:
        """`scores` (N, K), higher is better; `label` (N,)."""
        counted = label >= 0
        scores, label = scores[counted], label[counted]
        if not len(label):
            return
        predicted = scores.argmax(1)
        np.add.at(self.confusion, (label, predicted), 1)
        k = min(5, scores.shape[1])
        top = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        self.in_top5 += int((top == label[:, None]).any(1).sum())

    def add_up(self, total: Callable[[np.ndarray], np.ndarray]) -> None:
        """Replace the counts by what `total` makes of them, the sum over all ranks."""
        self.confusion = total(self.confusion)
        self.in_top5 = int(total(np.array([self.in_top5], np.int64))[0])

    @property
    def samples(self) -> int:
        return int(self.confusion.sum())

    @property
    def top1(self) -> float:
        return float(np.trace(self.confusion)) / max(self.samples, 1)

    @property
    def top5(self) -> float:
        return self.in_top5 / max(self.samples, 1)

    def per_class_csv(self, names: list[str]) -> str:
        """One line per class: name, samples, correct, accuracy (empty where the class was not seen)."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["class", "samples", "correct", "accuracy"])
        for index, name in enumerate(names):
            samples, correct = int(self.confusion[index].sum()), int(self.confusion[index, index])
            writer.writerow([name, samples, correct, f"{correct / samples:.6f}" if samples else ""])
        return out.getvalue()


class Segmentation:
    """IoU and accuracy per class from one confusion matrix, whatever the number of pixels.

    A class that is neither in the labels nor predicted has no IoU (nan) and does not count in the means.
    """

    def __init__(self, classes: int, ignore: int = 255):
        self.confusion = np.zeros((classes, classes), np.int64)  # row = true class, column = predicted class
        self.ignore = ignore
        self.images = 0

    def update(self, predicted: np.ndarray, label: np.ndarray) -> None:
        """`predicted` and `label` (..., H, W) of class indices, of one or more images; ignored labels do not count."""
        classes = len(self.confusion)
        if predicted.shape != label.shape:
            raise ValueError(f"predicted has shape {predicted.shape}, the label {label.shape}; they have to be equal")
        ignored = label == self.ignore
        code = label.astype(np.intp)
        code *= classes
        code += predicted
        code[ignored] = classes * classes  # one more bin, which is thrown away
        if predicted.size and not 0 <= predicted.min() <= predicted.max() < classes:
            raise ValueError(f"predicted holds {predicted.min()}..{predicted.max()}; it has to be 0..{classes - 1}")
        if code.size and code.min() < 0 or (code >= classes * classes).sum() != ignored.sum():
            raise ValueError(f"a label is neither 0..{classes - 1} nor the ignored {self.ignore}")
        counts = np.bincount(code.ravel(), minlength=classes * classes)[: classes * classes]
        self.confusion += counts.reshape(classes, classes)
        self.images += int(np.prod(label.shape[:-2], dtype=np.int64))

    def add_up(self, total: Callable[[np.ndarray], np.ndarray]) -> None:
        """Replace the counts by what `total` makes of them, the sum over all ranks."""
        self.confusion = total(self.confusion)
        self.images = int(total(np.array([self.images], np.int64))[0])

    @property
    def pixels(self) -> int:
        return int(self.confusion.sum())

    @property
    def iou(self) -> np.ndarray:
        """(K,) float64: intersection over union."""
        both = np.diag(self.confusion)
        return ratio(both, self.confusion.sum(0) + self.confusion.sum(1) - both)

    @property
    def accuracy(self) -> np.ndarray:
        """(K,) float64: the share of a class's pixels that are predicted as that class."""
        return ratio(np.diag(self.confusion), self.confusion.sum(1))

    @property
    def miou(self) -> float:
        return mean_of_present(self.iou)

    @property
    def macc(self) -> float:
        return mean_of_present(self.accuracy)

    @property
    def pixel_accuracy(self) -> float:
        return float(np.trace(self.confusion)) / self.pixels if self.pixels else math.nan

    def per_class_csv(self, names: Sequence[str]) -> str:
        """One line per class: name, true and predicted pixels, IoU and accuracy (empty where there is none)."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["class", "pixels", "predicted", "iou", "accuracy"])
        columns = (names, self.confusion.sum(1), self.confusion.sum(0), self.iou, self.accuracy)
        for name, pixels, predicted, iou, accuracy in zip(*columns):
            shares = ["" if math.isnan(share) else f"{share:.6f}" for share in (iou, accuracy)]
            writer.writerow([name, pixels, predicted, *shares])
        return out.getvalue()

    def json(self, names: Sequence[str]) -> str:
        """Everything as one JSON object; null where there is no value."""

        def value(number: float) -> float | None:
            return None if math.isnan(number) else float(number)

        content = {
            "images": self.images,
            "pixels": self.pixels,
            "miou": value(self.miou),
            "macc": value(self.macc),
            "pixel_accuracy": value(self.pixel_accuracy),
            "classes": {
                name: {"iou": value(iou), "accuracy": value(accuracy)}
                for name, iou, accuracy in zip(names, self.iou, self.accuracy)
            },
            "confusion": self.confusion.tolist(),
        }
        return json.dumps(content, ensure_ascii=False) + "\n"


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, nan where whole is 0."""
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


def mean_of_present(values: np.ndarray) -> float:
    """The mean of what is not nan; nan where nothing is."""
    present = values[~np.isnan(values)]
    return float(present.mean()) if len(present) else math.nan
