"""BN folded into weights and biases, and these as integers with exactly the scales that were trained."""

from __future__ import annotations

from src.mobilenetv2_quant.network import QuantConv, QuantDense
from src.quantisation.weights import Folded, FoldedOnGrid, quantised


def fold(layer: QuantConv | QuantDense) -> Folded:
    """The numbers of one layer as the training graph sees them; scales come from the operators that it uses."""
    folded = layer.folded_weight()
    weight, bias = folded.asnumpy().copy(), layer.folded_bias().asnumpy().copy()
    if layer.quantiser is None:
        return Folded(layer.name, weight, bias)
    scale, zero_point = (value.asnumpy().copy() for value in layer.quantiser.scale_and_zero_point(folded))
    grid = layer.quantiser.grid
    return FoldedOnGrid(layer.name, weight, bias, scale, zero_point, quantised(weight, scale, zero_point, grid), grid)
