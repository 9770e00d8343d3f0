"""From the histogram of an activation to the range of its grid: extremes, percentile, squared error, entropy.

No MindSpore here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from src.quantisation.grid import LEAST_SCALE, Grid

BINS = 2048
PERCENTILE = 99.99  # of all values, half of the rest on either side
SHARES = np.linspace(0.05, 1.0, 96)  # of the extremes, which the searches try


@dataclass
class Histogram:
    """Counts of values in BINS equal bins from `least` to `greatest`; values outside count in the outermost bins."""

    least: float
    greatest: float
    counts: np.ndarray

    @staticmethod
    def over(least: float, greatest: float) -> Histogram:
        """An empty one, whose range holds 0."""
        least, greatest = min(least, 0.0), max(greatest, 0.0)
        return Histogram(least, max(greatest, least + BINS * LEAST_SCALE), np.zeros(BINS))

    def add(self, values: np.ndarray) -> None:
        inside = values.clip(self.least, self.greatest)
        self.counts += np.histogram(inside, BINS, (self.least, self.greatest))[0]

    def centres(self) -> np.ndarray:
        edges = np.linspace(self.least, self.greatest, BINS + 1)
        return (edges[:-1] + edges[1:]) / 2


def percentile(histogram: Histogram, grid: Grid) -> tuple[float, float]:
    """The range that holds PERCENTILE of all values."""
    cumulated = np.cumsum(histogram.counts) / histogram.counts.sum()
    outside = (1 - PERCENTILE / 100) / 2
    edges = np.linspace(histogram.least, histogram.greatest, BINS + 1)
    first = int(np.searchsorted(cumulated, outside, side="right"))
    last = int(np.searchsorted(cumulated, 1 - outside, side="left"))
    return float(min(edges[first], 0.0)), float(max(edges[min(last, BINS - 1) + 1], 0.0))


def searched(histogram: Histogram, loss: Callable[[float, float], float]) -> tuple[float, float]:
    """The range with the least `loss(least, greatest)` among those with either end at a share of the extremes.

    Both ends are drawn in together first, then each on its own.
    """
    both = min((loss(histogram.least * share, histogram.greatest * share), share) for share in SHARES)[1]
    least, greatest = histogram.least * both, histogram.greatest * both
    if histogram.least < 0:
        least = min((loss(histogram.least * share, greatest), histogram.least * share) for share in SHARES)[1]
    if histogram.greatest > 0:
        greatest = min((loss(least, histogram.greatest * share), histogram.greatest * share) for share in SHARES)[1]
    return least, greatest


def on_grid(values: np.ndarray, least: float, greatest: float, grid: Grid) -> np.ndarray:
    """`values` rounded to the grid over a range, as quantiser.grid_over lays it."""
    if grid.symmetric:
        scale = max(2 * max(-least, greatest) / (grid.high - grid.low), LEAST_SCALE)
        zero_point = 0.0
    else:
        scale = max((greatest - least) / (grid.high - grid.low), LEAST_SCALE)
        zero_point = np.clip(grid.low - np.rint(least / scale), grid.low, grid.high)
    return (np.clip(np.rint(values / scale) + zero_point, grid.low, grid.high) - zero_point) * scale


def squared_error(histogram: Histogram, grid: Grid) -> tuple[float, float]:
    """The range with the least squared difference between values and their quantised ones."""
    centres, counts = histogram.centres(), histogram.counts

    def loss(least: float, greatest: float) -> float:
        return float((counts * (on_grid(centres, least, greatest, grid) - centres) ** 2).sum())

    return searched(histogram, loss)


def entropy(histogram: Histogram, grid: Grid) -> tuple[float, float]:
    """The range whose quantised distribution says most about that of the values: least Kullback-Leibler divergence.

    TensorRT's calibration, for ranges with two ends: what is clipped counts at the ends, and each step's count is
    spread evenly over those of its bins that hold anything. Zeros count as little as what is beside them.
    """
    centres, counts = histogram.centres(), without_zeros(histogram)

    def loss(least: float, greatest: float) -> float:
        inside = (centres >= least) & (centres <= greatest)
        if not counts[inside].sum():
            return float("inf")
        truth = np.where(inside, counts, 0.0)
        places = np.flatnonzero(inside)
        truth[places[0]] += counts[: places[0]].sum()
        truth[places[-1]] += counts[places[-1] + 1 :].sum()
        steps = np.unique(on_grid(centres[inside], least, greatest, grid), return_inverse=True)[1]
        filled = counts[inside] > 0
        sums, bins = np.bincount(steps, counts[inside]), np.bincount(steps, filled)
        spread = np.zeros_like(counts)
        spread[inside] = np.where(filled, sums[steps] / np.maximum(bins[steps], 1), 0.0)
        return divergence(truth / truth.sum(), spread / spread.sum())

    return searched(histogram, loss)


def without_zeros(histogram: Histogram) -> np.ndarray:
    """Counts in which the bin of 0 holds no more than its neighbours.

    Half of a ReLU's results are 0, which every grid has; spread over a step's bins they would cost so much that only
    ranges with steps as small as a bin were found.
    """
    counts = histogram.counts.copy()
    near = int(-histogram.least / (histogram.greatest - histogram.least) * BINS)
    first = max(near - 1, 0)
    zero = first + int(counts[first : near + 2].argmax())  # rounding may have put 0 into a bin beside
    neighbours = np.append(counts[max(zero - 1, 0) : zero], counts[zero + 1 : zero + 2])
    counts[zero] = min(counts[zero], neighbours.max())
    return counts if counts.any() else histogram.counts


def divergence(truth: np.ndarray, model: np.ndarray) -> float:
    """Kullback-Leibler divergence of two distributions; a value that `model` calls impossible costs much, not all."""
    seen = truth > 0
    return float((truth[seen] * np.log(truth[seen] / np.maximum(model[seen], 1e-9))).sum())


SEARCHES = {"percentile": percentile, "mse": squared_error, "entropy": entropy}
