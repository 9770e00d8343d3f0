"""Metrics that count what they saw. No MindSpore here."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable

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
