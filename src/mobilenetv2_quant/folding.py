"""BN folded into weights and biases, and these as integers with exactly the scales that were trained."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from mindspore import Tensor

from src.mobilenetv2_quant.network import QuantConv, QuantDense
from src.mobilenetv2_quant.quantiser import Grid, room_for_bias


@dataclass(frozen=True)
class Folded:
    """A layer without BN: weight (C_out, ...) and bias (C_out,) float32."""

    name: str
    weight: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True)
class FoldedOnGrid(Folded):
    """One whose weight is quantised: `whole` is it as int8, on the grid of `scale` (R,) and `zero_point` (R,)."""

    scale: np.ndarray
    zero_point: np.ndarray
    whole: np.ndarray
    grid: Grid

    def on_grid(self) -> np.ndarray:
        """The quantised weight as float32."""
        shape = (-1,) + (1,) * (self.weight.ndim - 1)
        return (self.whole.astype(np.float32) - self.zero_point.reshape(shape)) * self.scale.reshape(shape)


def fold(layer: QuantConv | QuantDense) -> Folded:
    """The numbers of one layer as the training graph sees them; scales come from the operators that it uses."""
    folded = layer.folded_weight()
    weight, bias = folded.asnumpy().copy(), layer.folded_bias().asnumpy().copy()
    if layer.quantiser is None:
        return Folded(layer.name, weight, bias)
    scale, zero_point = (value.asnumpy().copy() for value in layer.quantiser.scale_and_zero_point(folded))
    grid = layer.quantiser.grid
    return FoldedOnGrid(layer.name, weight, bias, scale, zero_point, quantised(weight, scale, zero_point, grid), grid)


def quantised(weight: np.ndarray, scale: np.ndarray, zero_point: np.ndarray, grid: Grid) -> np.ndarray:
    """Weight (C_out, ...) float32 -> int8, by the arithmetic of quantiser.Snap."""
    shape = (-1,) + (1,) * (weight.ndim - 1)
    whole = np.rint(weight / scale.reshape(shape)) + zero_point.reshape(shape)
    return np.clip(whole, grid.low, grid.high).astype(np.int8)


def with_room_for_bias(folded: FoldedOnGrid, input_scale: np.floating) -> tuple[FoldedOnGrid, int]:
    """The same layer, with coarser weights in channels whose bias would not fit into an int32; and their number."""
    given = (Tensor(np.atleast_1d(value)) for value in (folded.scale, folded.bias, input_scale))
    scale = room_for_bias(*given).asnumpy()
    changed = int((scale != folded.scale).sum())
    if not changed:
        return folded, 0
    whole = quantised(folded.weight, scale, folded.zero_point, folded.grid)
    return replace(folded, scale=scale, whole=whole), changed


def whole_bias(bias: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Bias (C_out,) float32 as multiples of `scale` (R,), by the arithmetic of integer_cells.IntConv."""
    return np.rint(bias / scale).astype(np.int32)
