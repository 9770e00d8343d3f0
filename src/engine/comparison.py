"""One network in several files and runtimes side by side: score, agreement with the first, latency.

No MindSpore here.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from src.engine.errors import ZooError

WARMING, PARTS = 10, 10  # calls before the measurement; parts of it, in turns, whose medians show how speed varies

Predict = Callable[[np.ndarray], np.ndarray]


class Metric(Protocol):
    """Counts how good predicted classes are."""

    def update(self, predicted: np.ndarray, truth: np.ndarray) -> None: ...

    @property
    def score(self) -> float: ...


class Contender(NamedTuple):
    """A file as one runtime runs it: `classes` of what a data set yields, and the `network` alone, for its latency.

    `names` are those of its classes, None for one that the file does not name.
    """

    classes: Callable[[Any], np.ndarray]
    network: Predict
    metric: Metric
    names: tuple[str | None, ...]


class Task(NamedTuple):
    """What all contenders do: `score` is the metric's name, `unit` what has a class, `samples()` starts anew."""

    score: str
    unit: str
    samples: Callable[[], Iterable[tuple[Any, ...]]]
    example: np.ndarray  # one input of the network, for its latency


class Result(NamedTuple):
    """`same` of `counted` classes (of images, or of pixels) are those of the first contender."""

    score: float
    same: int
    counted: int


def require_same_classes(files: Sequence[Path], contenders: Sequence[Contender]) -> None:
    """Raise ZooError where a file gives other classes than the first: equal numbers would mean different things."""
    first = contenders[0].names
    for file, names in zip(files, (each.names for each in contenders)):
        if len(names) != len(first):
            raise ZooError(
                f"{file} has {len(names)} classes and {files[0]} has {len(first)}; compare files of the same classes"
            )
        for number, (own, other) in enumerate(zip(names, first)):
            if own != other and None not in (own, other):
                raise ZooError(
                    f"class {number} is {own!r} in {file} and {other!r} in {files[0]}; "
                    "compare files of the same classes"
                )


def compare(contenders: Sequence[Contender], samples: Iterable[tuple[Any, ...]]) -> list[Result]:
    """Feed all samples to all contenders; nothing of them is kept.

    A sample is what `classes` takes, the true classes, and which of them count, (...) bool.
    """
    same, counted = np.zeros(len(contenders), np.int64), 0
    for inputs, truth, counts in samples:
        found = [contender.classes(inputs) for contender in contenders]
        for contender, predicted in zip(contenders, found):
            contender.metric.update(predicted, truth)
        same += [int(((predicted == found[0]) & counts).sum()) for predicted in found]
        counted += int(counts.sum())
    return [Result(each.metric.score, int(equal), counted) for each, equal in zip(contenders, same)]


def latencies(networks: Sequence[Predict], image: np.ndarray, trials: int) -> list[tuple[float, float, float]]:
    """Median, lowest and highest median of ten parts, in ms, of one input per network; the networks take turns."""
    for predict in networks:
        for _ in range(WARMING):
            predict(image)
    parts: list[list[float]] = [[] for _ in networks]
    for _ in range(PARTS):
        for part, predict in zip(parts, networks):
            part.append(statistics.median(milliseconds(predict, image) for _ in range(trials // PARTS)))
    return [(statistics.median(part), min(part), max(part)) for part in parts]


def milliseconds(predict: Predict, image: np.ndarray) -> float:
    """How long one call takes."""
    began = time.perf_counter()
    predict(image)
    return 1000 * (time.perf_counter() - began)
