"""Ranges of the activations from a few batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops


class Observed(nn.Cell):
    """A cell of its own, because graphs are kept by cell and this one is compiled while the quantisers add up."""

    def __init__(self, net: nn.Cell):
        super().__init__(auto_prefix=False)
        self.net = net

    def construct(self, image: Tensor) -> Tensor:
        return self.net(image)


def observe(net: nn.Cell, quantisers: Sequence[nn.Cell], images: Iterable[Tensor]) -> int:
    """Set the range of each of `quantisers`, which are `summing`, to the mean of the batches' extremes.

    Returns the number of batches.
    """
    for quantiser in quantisers:
        ops.assign(quantiser.range, Tensor(np.zeros(2), ms.float32))
    observed, count = Observed(net).set_train(False), 0
    for image in images:
        observed(image)
        count += 1
    for quantiser in quantisers:
        ops.assign(quantiser.range, quantiser.range / count)
    return count
