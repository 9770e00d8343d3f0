"""BN folded into weights and biases, and these as integers with exactly the scales that were trained."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from src.mobilenetv2 import network
from src.mobilenetv2_quant.network import QuantConv, QuantDense
from src.mobilenetv2_quant.quantiser import Grid

BIAS_LIMIT = 2.0**30  # of an int32; an integer kernel adds the products to the bias


@dataclass(frozen=True)
class Folded:
    """A layer without BN: weight (C_out, ...) and bias (C_out,) float32; the rest is None where it stays float.

    `whole` is the weight as int8, on the grid of `scale` (R,) and `zero_point` (R,).
    """

    name: str
    weight: np.ndarray
    bias: np.ndarray
    scale: np.ndarray | None
    zero_point: np.ndarray | None
    whole: np.ndarray | None

    def on_grid(self) -> np.ndarray:
        """The quantised weight as float32."""
        shape = (-1,) + (1,) * (self.weight.ndim - 1)
        return (self.whole.astype(np.float32) - self.zero_point.reshape(shape)) * self.scale.reshape(shape)


def fold(layer: QuantConv | QuantDense) -> Folded:
    """The numbers of one layer as the training graph sees them; scales come from the operators that it uses."""
    folded = layer.folded_weight()
    weight, bias = folded.asnumpy().copy(), bias_of(layer)
    if layer.quantiser is None:
        return Folded(layer.name, weight, bias, None, None, None)
    scale, zero_point = (value.asnumpy().copy() for value in layer.quantiser.scale_and_zero_point(folded))
    grid = layer.quantiser.grid
    return Folded(layer.name, weight, bias, scale, zero_point, whole_numbers(weight, scale, zero_point, grid))


def bias_of(layer: QuantConv | QuantDense) -> np.ndarray:
    """beta - mean * gamma / std, or the classifier's bias; (C_out,) float32."""
    if isinstance(layer, QuantDense):
        return layer.bias.asnumpy().copy()
    gamma, beta, mean, variance = (
        p.asnumpy().astype(np.float64) for p in (layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance)
    )
    return (beta - mean * gamma / np.sqrt(variance + network.BN_EPS)).astype(np.float32)


def whole_numbers(weight: np.ndarray, scale: np.ndarray, zero_point: np.ndarray, grid: Grid) -> np.ndarray:
    """Weight (C_out, ...) float32 -> int8, by the arithmetic of quantiser.Snap."""
    shape = (-1,) + (1,) * (weight.ndim - 1)
    whole = np.rint(weight / scale.reshape(shape)) + zero_point.reshape(shape)
    return np.clip(whole, grid.low, grid.high).astype(np.int8)


def with_room_for_bias(folded: Folded, input_scale: float, grid: Grid) -> tuple[Folded, int]:
    """The same layer, with coarser weights in channels whose bias would not fit into an int32; and their number.

    Only channels whose weights are next to nothing beside their bias are like that.
    """
    needed = np.abs(folded.bias).astype(np.float64) / (BIAS_LIMIT * input_scale)
    if len(folded.scale) == 1:
        needed = needed.max(keepdims=True)
    scale = np.maximum(folded.scale, needed.astype(np.float32))
    changed = int((scale != folded.scale).sum())
    if not changed:
        return folded, 0
    whole = whole_numbers(folded.weight, scale, folded.zero_point, grid)
    return Folded(folded.name, folded.weight, folded.bias, scale, folded.zero_point, whole), changed
