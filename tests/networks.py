"""Networks for comparisons over several training steps."""

from __future__ import annotations

import mindspore as ms
import numpy as np

from src.mobilenetv2 import network


def calm(net: network.MobileNetV2) -> network.MobileNetV2:
    """Give a network weights on which rounding differences stay small for many steps.

    Fresh batch-normalised networks are chaotic: PyTorch in float32 and in float64 differ by 1e-2 in the loss after four
    steps of the usual weights. Most of it comes from ReLU6's kinks, so here its input starts in the middle of 0..6,
    with about 0.3 % outside. The last group stays nearer to 0, or the classifier would see one large constant.
    """
    rng = np.random.default_rng(3)
    for _, cell in net.cells_and_names():
        if isinstance(cell, ms.nn.Conv2d):
            fan_in = np.prod(cell.weight.shape[1:])
            weight = rng.normal(0, np.sqrt(2 / fan_in), cell.weight.shape)
            cell.weight.set_data(ms.Tensor(weight.astype(np.float32)))
        elif isinstance(cell, network.ConvBNReLU6):
            middle, spread = (0.5, 0.2) if cell is net.backbone.features[18] else (3.0, 1.0)
            cell[1].beta.set_data(ms.Tensor(np.full(cell[1].beta.shape, middle, np.float32)))
            cell[1].gamma.set_data(ms.Tensor(np.full(cell[1].gamma.shape, spread, np.float32)))
    return net
