"""What a classifier's predictions say: classes, confusions with pictures, mistakes, reliability. No MindSpore here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from src.engine.data import images
from src.engine.data.source import Source
from src.engine.metrics import ratio
from src.inspection import page
from src.inspection.page import Picture, Raw
from src.inspection.run.matrix import matrix

MOST_OF_A_CELL = 12  # pictures of one cell of the confusion matrix
MOST_PICTURES = 1500  # of the whole matrix; mistakes come first
WORST = 24  # mistakes
SIDE = 64  # pixels of a picture
BINS = 10  # of the reliability diagram
LINE = 'stroke="#555f6b" stroke-dasharray="4 4"'


@dataclass(frozen=True)
class Predictions:
    """Of every readable picture of `source`: its number there, true and predicted class, probability of that class."""

    source: Source
    names: list[str]
    index: np.ndarray  # (N,) int
    truth: np.ndarray  # (N,) int
    predicted: np.ndarray  # (N,) int
    confidence: np.ndarray  # (N,) float, 0 to 1
    in_top5: np.ndarray  # (N,) bool

    @property
    def right(self) -> np.ndarray:
        return self.truth == self.predicted

    @property
    def confusion(self) -> np.ndarray:
        """(K, K): row = true class, column = predicted class."""
        found = np.zeros((len(self.names), len(self.names)), np.int64)
        np.add.at(found, (self.truth, self.predicted), 1)
        return found

    def picture(self, row: int) -> Picture | None:
        """A picture and what was made of it; None where it cannot be read any more."""
        name = self.source.name(int(self.index[row]))
        truth, predicted = self.names[self.truth[row]], self.names[self.predicted[row]]
        try:
            pixels = page.thumbnail(images.decode(self.source.read(int(self.index[row]))), SIDE)
        except images.BadImage:
            return None
        verdict = truth if truth == predicted else f"{truth}, taken for {predicted}"
        return Picture(pixels, f"{name}: {verdict} ({self.confidence[row]:.3f})")


def sections(found: Predictions, title: str) -> Iterator[Raw]:
    """All that a page shows of them; `title` is in front of every heading."""
    top1, top5 = float(found.right.mean()), float(found.in_top5.mean())
    error = calibration_error(found)
    summary = page.table(
        ["measure", "value"],
        [["pictures", len(found.index)], ["top-1", top1], ["top-5", top5], ["calibration error (ECE)", error]],
    )
    header = ["class", "precision", "recall", "F1", "support"]
    yield page.section(f"{title}Pictures", summary)
    yield page.section(f"{title}Classes", page.table(header, per_class(found.confusion, found.names), filtered=True))
    pictures, cells = chosen_pictures(found)
    confusions = matrix(found.confusion, found.names, pictures, cells, "pictures")
    yield page.section(f"{title}Confusion matrix", confusions)
    worst = np.flatnonzero(~found.right)
    worst = worst[np.argsort(-found.confidence[worst], kind="stable")][:WORST]
    shown = [picture for row in worst if (picture := found.picture(int(row))) is not None]
    yield page.section(f"{title}Worst mistakes", page.gallery(shown) if shown else page.paragraph("none"))
    yield page.section(f"{title}Reliability", reliability(found))


def per_class(confusion: np.ndarray, names: list[str]) -> list[list[str | int | float]]:
    """Name, precision, recall, F1 and number of pictures of every class; nan where there is nothing to divide by."""
    both, actual, predicted = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    columns = ratio(both, predicted), ratio(both, actual), ratio(2 * both, actual + predicted)
    return [[name, *(float(column[row]) for column in columns), int(actual[row])] for row, name in enumerate(names)]


def score_of_classes(found: Predictions) -> list[float]:
    """Recall of every class, nan without pictures."""
    return [float(value) for value in ratio(np.diag(found.confusion), found.confusion.sum(1))]


def chosen_pictures(found: Predictions) -> tuple[list[Picture], dict[tuple[int, int], list[int]]]:
    """Pictures for the cells of the matrix: mistakes before right ones, those of high confidence first."""
    order = np.lexsort((-found.confidence, found.right))
    cells: dict[tuple[int, int], list[int]] = {}
    pictures: list[Picture] = []
    for row in order.tolist():
        cell = cells.setdefault((int(found.truth[row]), int(found.predicted[row])), [])
        if len(cell) < MOST_OF_A_CELL and (picture := found.picture(row)) is not None:
            cell.append(len(pictures))
            pictures.append(picture)
        if len(pictures) == MOST_PICTURES:
            break
    return pictures, cells


def bins(found: Predictions) -> list[tuple[float, float, int]]:
    """(mean confidence, share that is right, pictures) of each of BINS equal ranges of confidence that holds any."""
    number = np.minimum((found.confidence * BINS).astype(int), BINS - 1)
    chosen = [number == value for value in np.unique(number)]
    return [(float(found.confidence[row].mean()), float(found.right[row].mean()), int(row.sum())) for row in chosen]


def calibration_error(found: Predictions) -> float:
    """Expected calibration error: the mean of |confidence - share that is right| over the bins, by their pictures."""
    return sum(abs(sure - right) * count for sure, right, count in bins(found)) / len(found.index)


def reliability(found: Predictions) -> Raw:
    """The diagram: how often predictions are right against how sure they are; on the diagonal both are equal."""
    size, edge = 260, 40
    parts = [f'<line x1="{edge}" y1="{size}" x2="{edge + size}" y2="0" {LINE}/>']
    for sure, right, count in bins(found):
        left = edge + size * min(int(sure * BINS), BINS - 1) / BINS
        told = f"{count} pictures: mean confidence {sure:.3f}, right {right:.3f}"
        strength = 0.35 + 0.65 * count / len(found.index)
        parts.append(
            f'<rect x="{left + 1:.1f}" y="{size * (1 - right):.1f}" width="{size / BINS - 2:.1f}" '
            f'height="{max(1.0, size * right):.1f}" fill="#1f6fb4" opacity="{strength:.2f}">'
            f"<title>{told}</title></rect>"
        )
    for value in (0, 0.5, 1):
        parts.append(f'<text x="{edge + size * value}" y="{size + 16}" text-anchor="middle">{value}</text>')
        parts.append(f'<text x="{edge - 6}" y="{size * (1 - value) + 10}" text-anchor="end">{value}</text>')
    parts.append(f'<text x="{edge + size / 2}" y="{size + 32}" text-anchor="middle">confidence</text>')
    drawing = f'<svg width="{size + edge + 20}" height="{size + 40}">{"".join(parts)}</svg>'
    rows: list[list[str | int | float]] = [[sure, right, count] for sure, right, count in bins(found)]
    table = page.table(["mean confidence", "share that is right", "pictures"], rows)
    return Raw(f'<figure class="chart"><figcaption>share that is right</figcaption>{drawing}</figure>{table}')
