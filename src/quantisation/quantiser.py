"""Fake quantisation in ordinary differentiable operators: grids, and the cells that put a tensor on one.

A grid holds the numbers (q - zero_point) * scale with whole q from `low` to `high`. Rounding has a straight-through
gradient: inside of the grid's range the gradient passes, outside it is 0 (Jacob et al., arXiv 1712.05877).
Tensors that share one scale are a row: R is the number of rows, 1 or the number of output channels.
"""

from __future__ import annotations

from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from src.cpu_kernels.custom import custom_operator, settings
from src.quantisation.grid import LEAST_SCALE, Grid
from src.quantisation.ranges import BINS

BN_EPS = 1e-5  # of the batch normalisations that are folded, in every network here
# Primitives: of the functions in mindspore.ops that do the same, graph mode compiles every use anew, which takes five
# times as long for a network with more than a hundred quantisers.
MINIMUM, MAXIMUM, ROUND, SELECT = ops.Minimum(), ops.Maximum(), ops.Round(), ops.Select()
ABOVE, BELOW, BOTH = ops.GreaterEqual(), ops.LessEqual(), ops.LogicalAnd()
LEAST_OF, GREATEST_OF = ops.ReduceMin(), ops.ReduceMax()
UNSEEN = 6.0  # range before anything was seen is -6..6, the original's
RELU6 = 6.0
ENDS_BY_RELU6 = RELU6 * (1 - 2.0**-20)  # a few float32 numbers less, so that rounding cannot lead beyond


def grid_over(least: Tensor, greatest: Tensor, low: float, high: float, symmetric: bool) -> tuple[Tensor, Tensor]:
    """Ranges (R,), (R,) -> scale (R,), whole zero point (R,) of the grid, both float32. 0 is always on the grid."""
    # No method of Grid: graph mode takes three times as long to compile one as to compile a function.
    least, greatest = MINIMUM(least, 0.0), MAXIMUM(greatest, 0.0)
    if symmetric:
        reach = MAXIMUM(-least, greatest)
        return MAXIMUM(reach * 2.0 / (high - low), LEAST_SCALE), ops.zeros_like(reach)
    scale = MAXIMUM((greatest - least) / (high - low), LEAST_SCALE)
    return scale, MINIMUM(MAXIMUM(low - ROUND(least / scale), low), high)


class Snap(nn.Cell):
    """x, scale (R,), zero point (R,) -> x on the grid, (least, greatest x) as (2,).

    With `library` it is one compiled CPU kernel, otherwise ordinary operators; both give the same bits.
    """

    def __init__(self, grid: Grid, library: Path | None = None):
        super().__init__(auto_prefix=False)
        self.low, self.high = float(grid.low), float(grid.high)
        self.limits = settings("FakeQuant", "limits", low=self.low, high=self.high)
        self.kernel = custom_operator(library, "FakeQuant") if library else None

    def construct(self, x: Tensor, scale: Tensor, zero_point: Tensor) -> tuple[Tensor, Tensor]:
        if self.kernel is not None:
            outputs = self.kernel(x, scale, zero_point, self.limits)
            return outputs[0], ops.stop_gradient(outputs[1])
        shape = (-1,) + (1,) * (x.ndim - 1)
        scale, zero_point = scale.reshape(shape), zero_point.reshape(shape)
        exact = x / scale
        # Exactly the rounded number (Sterbenz' lemma), with the gradient of `exact`.
        whole = exact + ops.stop_gradient(ROUND(exact) - exact) + zero_point
        inside = BOTH(ABOVE(whole, self.low), BELOW(whole, self.high))
        # Not the gradient of `minimum`, which passes one half on the bounds themselves.
        nearest = ops.stop_gradient(MINIMUM(MAXIMUM(whole, self.low), self.high))
        return (SELECT(inside, whole, nearest) - zero_point) * scale, extremes(x)


def extremes(x: Tensor) -> Tensor:
    """(least, greatest x), without gradient."""
    return ops.stop_gradient(ops.stack((LEAST_OF(x), GREATEST_OF(x))))


def counts_of(x: Tensor, extent: Tensor) -> Tensor:
    """(BINS,): how many of x (...) lie in each of the equal bins of the range (2,); the outermost take the rest."""
    width = (extent[1] - extent[0]) / BINS
    bins = MINIMUM(MAXIMUM(ops.floor((x.reshape(-1) - extent[0]) / width), 0.0), BINS - 1.0).astype(ms.int32)
    return ops.unsorted_segment_sum(ops.ones_like(bins).astype(ms.float32), bins, BINS)


class RangeSnap(nn.Cell):
    """x, range (2,) -> x on the grid over the range, in training also the range moved towards that of x.

    With `library` it is one compiled CPU kernel, otherwise ordinary operators.
    """

    def __init__(self, grid: Grid, decay: float, library: Path | None = None):
        super().__init__(auto_prefix=False)
        self.numbers, self.decay = grid.numbers(), decay
        self.snap = Snap(grid)
        self.settings = settings("RangeFakeQuant", low=grid.low, high=grid.high, symmetric=grid.symmetric, decay=decay)
        self.kernel = custom_operator(library, "RangeFakeQuant") if library else None

    def construct(self, x: Tensor, extent: Tensor) -> tuple[Tensor, Tensor]:
        if self.kernel is not None:
            outputs = self.kernel(x, extent, self.settings)
            return outputs[0], ops.stop_gradient(outputs[1])
        scale, zero_point = grid_over(extent[0:1], extent[1:2], *self.numbers)
        quantised, seen = self.snap(x, ops.stop_gradient(scale), ops.stop_gradient(zero_point))
        return quantised, extent * self.decay + seen * (1.0 - self.decay) if self.training else extent


class ActivationQuantiser(nn.Cell):
    """Activations of any shape on one grid for the whole tensor, whose range is a moving average over batches.

    A batch is quantised with the range from before it, so that one pass over it is enough. While `summing`, extremes
    are added up and nothing is quantised (calibration), while `counting` (calibration.py gives it `counts` then),
    values are, in the bins of the range; `quantising` False only observes, `moving` False keeps the range in training.
    """

    def __init__(self, name: str, grid: Grid, decay: float, library: Path | None = None):
        super().__init__(auto_prefix=False)
        self.name, self.grid, self.numbers = name, grid, grid.numbers()
        self.range = Parameter(Tensor([-UNSEEN, UNSEEN], ms.float32), name=f"{name}.range", requires_grad=False)
        self.snap = RangeSnap(grid, decay, library)
        self.summing, self.counting, self.quantising, self.moving = False, False, True, True

    def scale_and_zero_point(self) -> tuple[Tensor, Tensor]:
        """(1,), (1,)"""
        return grid_over(self.range[0:1], self.range[1:2], *self.numbers)

    def construct(self, x: Tensor) -> Tensor:
        if self.summing:
            ops.assign(self.range, self.range + extremes(x))
            return x
        if self.counting:
            ops.assign(self.counts, self.counts + counts_of(x, self.range))
            return x
        quantised, moved = self.snap(x, self.range)
        if self.training:
            if self.moving:
                ops.assign(self.range, moved)
            if not self.quantising:
                return x
        return quantised


class LearnedActivationQuantiser(nn.Cell):
    """Activations on a grid whose step is trained (LSQ, arXiv 1902.08153); the zero point stays as calibrated.

    After ReLU6 the step ends where the grid reaches 6: a wider one would hold numbers that never come, and integer
    kernels could not leave ReLU6 to the grid. While `quantising` is False the range moves as ActivationQuantiser's.
    """

    def __init__(self, name: str, grid: Grid, decay: float, after_relu6: bool, library: Path | None = None):
        super().__init__(auto_prefix=False)
        self.name, self.grid, self.high, self.decay = name, grid, float(grid.high), decay
        self.ends_by_relu6 = after_relu6 and not grid.symmetric
        self.range = Parameter(Tensor([-UNSEEN, UNSEEN], ms.float32), name=f"{name}.range", requires_grad=False)
        self.scale = Parameter(Tensor([1.0], ms.float32), name=f"{name}.scale")
        self.zero_point = Parameter(Tensor([0.0], ms.float32), name=f"{name}.zero_point", requires_grad=False)
        self.snap = Snap(grid, library)
        self.summing, self.counting, self.quantising, self.moving = False, False, True, True

    def start(self) -> None:
        """Step and zero point from the calibrated range."""
        scale, zero_point = grid_over(self.range[0:1], self.range[1:2], *self.grid.numbers())
        ops.assign(self.scale, scale)
        ops.assign(self.zero_point, zero_point)

    def scale_and_zero_point(self) -> tuple[Tensor, Tensor]:
        """(1,), (1,)"""
        scale = MAXIMUM(self.scale, LEAST_SCALE)
        if self.ends_by_relu6:
            scale = MINIMUM(scale, ENDS_BY_RELU6 / (self.high - self.zero_point - 0.5))
        return scale, self.zero_point

    def construct(self, x: Tensor) -> Tensor:
        if self.summing:
            ops.assign(self.range, self.range + extremes(x))
            return x
        if self.counting:
            ops.assign(self.counts, self.counts + counts_of(x, self.range))
            return x
        if self.training and not self.quantising:
            if self.moving:
                ops.assign(self.range, self.range * self.decay + extremes(x) * (1.0 - self.decay))
            return x
        scale, zero_point = self.scale_and_zero_point()
        if self.training:
            learned = self.scale + ops.stop_gradient(scale - self.scale)  # the gradient passes the limits
            scale = with_gradient_factor(learned, (x.size * self.high) ** -0.5)
        return self.snap(x, scale, zero_point)[0]


class WeightQuantiser(nn.Cell):
    """A weight (C_out, ...) on a grid that spans its present values, per output channel or as a whole."""

    def __init__(self, name: str, grid: Grid, per_channel: bool, library: Path | None = None):
        super().__init__(auto_prefix=False)
        self.name, self.grid, self.numbers = name, grid, grid.numbers()
        self.per_channel, self.is_learned = per_channel, False
        self.snap = Snap(grid, library)
        self.settings = settings(
            "FoldedFakeQuant", low=grid.low, high=grid.high, symmetric=grid.symmetric,
            per_channel=per_channel, eps=BN_EPS,
        )  # fmt: skip
        self.folded_kernel = custom_operator(library, "FoldedFakeQuant") if library else None

    def scale_and_zero_point(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """(R,), (R,)"""
        rows = weight.reshape((weight.shape[0], -1) if self.per_channel else (1, -1))
        return grid_over(LEAST_OF(rows, 1), GREATEST_OF(rows, 1), *self.numbers)

    def construct(self, weight: Tensor) -> Tensor:
        scale, zero_point = self.scale_and_zero_point(ops.stop_gradient(weight))
        return self.snap(weight, scale, zero_point)[0]

    def through_fold(self, weight: Tensor, gamma: Tensor, variance: Tensor) -> Tensor:
        """FQ(weight * factor) / factor: the weight (C_out, ...), quantised as it will be with BN folded in."""
        if self.folded_kernel is not None:
            return self.folded_kernel(weight, gamma, variance, self.settings)[0]
        factor = fold_factor(gamma, variance)
        return self.construct(weight * factor) / divisor_of(factor)


class LearnedWeightQuantiser(nn.Cell):
    """A weight (C_out, ...) on a symmetric grid whose steps (R,) are trained (LSQ)."""

    def __init__(self, name: str, grid: Grid, rows: int, library: Path | None = None):
        super().__init__(auto_prefix=False)
        self.name, self.grid, self.rows, self.high = name, grid, rows, float(grid.high)
        self.per_channel, self.is_learned = rows > 1, True
        self.scale = Parameter(Tensor(np.ones(rows), ms.float32), name=f"{name}.scale")
        self.snap = Snap(grid, library)

    def start(self, weight: np.ndarray) -> None:
        """The paper's first step size: 2 * mean |w| / sqrt(high)."""
        scale = 2 * np.abs(weight.reshape(self.rows, -1)).mean(1) / np.sqrt(self.high)
        ops.assign(self.scale, Tensor(np.maximum(scale, LEAST_SCALE), ms.float32))

    def scale_and_zero_point(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """(R,), (R,)"""
        return MAXIMUM(self.scale, LEAST_SCALE), ops.zeros_like(self.scale)

    def construct(self, weight: Tensor) -> Tensor:
        scale, zero_point = self.scale_and_zero_point(weight)
        if self.training:
            scale = with_gradient_factor(scale, (weight.size / self.rows * self.high) ** -0.5)
        return self.snap(weight, scale, zero_point)[0]

    def through_fold(self, weight: Tensor, gamma: Tensor, variance: Tensor) -> Tensor:
        """As WeightQuantiser.through_fold."""
        factor = fold_factor(gamma, variance)
        return self.construct(weight * factor) / divisor_of(factor)


def fold_factor(gamma: Tensor, variance: Tensor) -> Tensor:
    """What BN multiplies each channel by, from (C_out,) to (C_out, 1, 1, 1)."""
    # Not rsqrt: divisions and square roots are rounded correctly everywhere, so kernel and export get the same bits.
    return (gamma * (1.0 / ops.sqrt(variance + BN_EPS))).reshape(-1, 1, 1, 1)


def divisor_of(factor: Tensor) -> Tensor:
    """`factor` with 1 in place of 0, the factor of a channel that BN switched off."""
    return SELECT(factor == 0, ops.ones_like(factor), factor)


def with_gradient_factor(value: Tensor, factor: float) -> Tensor:
    """`value` (up to rounding), whose gradient is multiplied by `factor`."""
    part = value * factor
    return part + ops.stop_gradient(value - part)
