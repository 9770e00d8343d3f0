"""What a segmentation's predictions say: IoU per class, confusions, pictures beside both masks. No MindSpore here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from src.engine.metrics import Segmentation
from src.inspection import page
from src.inspection.page import Picture, Raw
from src.inspection.run.classes import per_class as of_confusion
from src.inspection.run.matrix import matrix
from src.segformer.data.class_list import ClassList

WORST = 12  # pictures of the lowest mIoU that are shown
BEST = 4  # of the highest
MOST_PICTURES = 60  # whose triples are kept
MOST_OF_A_CELL = 6
WIDTH = 540  # pixels of a triple


class Pair(NamedTuple):
    """A picture (H, W, 3) uint8, its mask and the predicted one (H, W) uint8."""

    file: str
    picture: np.ndarray
    mask: np.ndarray
    predicted: np.ndarray


@dataclass
class Seen:
    """What is kept of one picture: its confusion of pixels and its triple."""

    file: str
    miou: float
    confusion: np.ndarray
    triple: np.ndarray


@dataclass
class Predictions:
    """The confusion of all pixels, and the pictures that are shown, the lowest mIoU first."""

    classes: ClassList
    metric: Segmentation
    pictures: list[Seen] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        return list(self.classes.names)


def collect(pairs: Iterable[Pair], classes: ClassList) -> Predictions:
    """Count all pictures and keep the triples of the worst and of the best, so that memory does not grow with them."""
    found = Predictions(classes, Segmentation(len(classes), classes.ignore))
    for pair in pairs:
        one = Segmentation(len(classes), classes.ignore)
        one.update(pair.predicted, pair.mask)
        found.metric.update(pair.predicted, pair.mask)
        miou = one.miou if np.isfinite(one.miou) else 1.0
        found.pictures.append(Seen(pair.file, miou, one.confusion, triple(pair, classes)))
        found.pictures.sort(key=lambda seen: seen.miou)
        if len(found.pictures) > MOST_PICTURES:
            del found.pictures[MOST_PICTURES - BEST]
    return found


def triple(pair: Pair, classes: ClassList) -> np.ndarray:
    """Picture, mask and prediction side by side; what the mask ignores is black in both."""
    colours = classes.colours()
    predicted = colours[pair.predicted].copy()
    predicted[pair.mask == classes.ignore] = 0
    return page.thumbnail(np.hstack([pair.picture, colours[pair.mask], predicted]), WIDTH)


def sections(found: Predictions, title: str) -> Iterator[Raw]:
    """All that a page shows of them; `title` is in front of every heading."""
    metric = found.metric
    summary = page.table(
        ["measure", "value"],
        [
            ["pictures", metric.images],
            ["mIoU", metric.miou],
            ["mean accuracy", metric.macc],
            ["pixel accuracy", metric.pixel_accuracy],
        ],
    )
    yield page.section(f"{title}Pictures", summary)
    header = ["class", "IoU", "precision", "recall", "F1", "pixels"]
    yield page.section(f"{title}Classes", page.table(header, per_class(found), filtered=True))
    pictures = [Picture(seen.triple, f"{seen.file}: mIoU {seen.miou:.3f}") for seen in found.pictures]
    yield page.section(
        f"{title}Confusion matrix", matrix(metric.confusion, found.names, pictures, cells_of(found), "pixels")
    )
    yield page.section(f"{title}Worst pictures: picture, mask, prediction", page.gallery(pictures[:WORST]))
    if len(pictures) > WORST:
        yield page.section(f"{title}Best pictures", page.gallery(pictures[: -BEST - 1 : -1]))


def per_class(found: Predictions) -> list[list[str | int | float]]:
    confusion, iou = found.metric.confusion, found.metric.iou
    return [[row[0], float(value), *row[1:]] for row, value in zip(of_confusion(confusion, found.names), iou)]


def score_of_classes(found: Predictions) -> list[float]:
    """IoU of every class, nan without pixels."""
    return [float(value) for value in found.metric.iou]


def cells_of(found: Predictions) -> dict[tuple[int, int], list[int]]:
    """For every cell the kept pictures with most of its pixels."""
    stacked = np.stack([seen.confusion for seen in found.pictures])
    cells = {}
    for row, column in zip(*np.nonzero(stacked.sum(0))):
        order = np.argsort(-stacked[:, row, column], kind="stable")[:MOST_OF_A_CELL]
        cells[int(row), int(column)] = [int(index) for index in order if stacked[index, row, column]]
    return cells
