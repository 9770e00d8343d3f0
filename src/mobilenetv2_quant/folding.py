"""BN folded into weights and biases, and these as integers with exactly the scales that were trained."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from mindspore import Tensor

from src.mobilenetv2_quant.network import QuantConv, QuantDense
from src.quantisation.quantiser import room_for_bias
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


def with_room_for_bias(folded: FoldedOnGrid, input_scale: np.floating) -> tuple[FoldedOnGrid, int]:
    """The same layer, with coarser weights in channels whose bias would not fit into an int32; and their number."""
    given = (Tensor(np.atleast_1d(value)) for value in (folded.scale, folded.bias, input_scale))
    scale = room_for_bias(*given).asnumpy()
    changed = int((scale != folded.scale).sum())
    if not changed:
        return folded, 0
    whole = quantised(folded.weight, scale, folded.zero_point, folded.grid)
    return replace(folded, scale=scale, whole=whole), changed
