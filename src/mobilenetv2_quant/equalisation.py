"""Cross-layer equalisation (Nagel et al., arXiv 1906.04721, section 4.1): channels of like size before and after ReLU6.

A channel that is multiplied by s before ReLU6 and divided by it after is the same network where ReLU6 cuts nothing off.
So a channel is scaled as far as its normalisation says that its values stay below 6, and one that is cut off stays.
"""

from __future__ import annotations

import numpy as np
from mindspore import Tensor, ops

from src.mobilenetv2.network import InvertedResidual, MobileNetV2
from src.mobilenetv2_quant.network import QuantConv
from src.quantisation.quantiser import RELU6

DEVIATIONS = 4.0  # above its mean, beyond which a normalised channel is taken to have no values


def equalise(net: MobileNetV2) -> int:
    """Scale the channels inside the inverted residuals; returns how many."""
    count = 0
    for _, cell in net.backbone.cells_and_names():
        if isinstance(cell, InvertedResidual):
            convs = [part for _, part in cell.cells_and_names() if isinstance(part, QuantConv)]
            count += sum(equalise_pair(first, second) for first, second in zip(convs, convs[1:]))
    return count


def equalise_pair(first: QuantConv, second: QuantConv) -> int:
    """Scale the channels between two convolutions; returns how many."""
    is_depthwise = second.weight.shape[1] == 1 and second.weight.shape[0] == first.weight.shape[0]
    axis = 0 if is_depthwise else 1  # of the channels in the second weight
    gamma, beta = first.gamma.asnumpy(), first.beta.asnumpy()
    before = greatest(first.folded_weight().asnumpy(), 0)
    after = greatest(second.folded_weight().asnumpy(), axis)
    scale = factors(before, after, beta + DEVIATIONS * np.abs(gamma))
    ops.assign(first.gamma, Tensor(gamma * scale))
    ops.assign(first.beta, Tensor(beta * scale))
    shape = [1] * second.weight.ndim
    shape[axis] = -1
    ops.assign(second.weight, Tensor(second.weight.asnumpy() / scale.reshape(shape)))
    return int((scale != 1).sum())


def greatest(weight: np.ndarray, axis: int) -> np.ndarray:
    """The largest absolute value in each channel, (C,)."""
    return np.abs(np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)).max(1)


def factors(before: np.ndarray, after: np.ndarray, highest: np.ndarray) -> np.ndarray:
    """What makes both sides sqrt(before * after), (C,) float32; no more than `highest` values allow."""
    known = (before > 0) & (after > 0) & (highest < RELU6)
    wanted = np.sqrt(np.divide(after, before, out=np.ones_like(before), where=known))
    most = np.divide(RELU6, highest, out=np.full_like(before, np.inf), where=highest > 0)
    return np.where(known, np.minimum(wanted, most), 1).astype(np.float32)
