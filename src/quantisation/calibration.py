"""Ranges of the activations from a few batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from src.quantisation.ranges import BINS, SEARCHES, Histogram


class Observed(nn.Cell):
    """A cell of its own, because graphs are kept by cell and this one is compiled while the quantisers add up."""

    def __init__(self, net: nn.Cell):
        super().__init__(auto_prefix=False)
        self.net = net

    def construct(self, image: Tensor) -> Tensor:
        return self.net(image)


def observe(net: nn.Cell, quantisers: Sequence[nn.Cell], images: Iterable[Tensor], method: str = "minmax") -> int:
    """Find the range of each of `quantisers` in `net`, in which nothing is quantised; returns the number of batches.

    That is the mean of the batches' extremes, or what another of ranges.METHODS makes of the values in between.
    """
    images = images if method == "minmax" else list(images)
    for quantiser in quantisers:
        ops.assign(quantiser.range, Tensor(np.zeros(2), ms.float32))
    count = passed(net, quantisers, images, "summing")
    for quantiser in quantisers:
        ops.assign(quantiser.range, quantiser.range / count)
    if method != "minmax" and count:
        search(net, quantisers, images, method)
    return count


def passed(net: nn.Cell, quantisers: Sequence[nn.Cell], images: Iterable[Tensor], doing: str) -> int:
    """Feed the batches to the network while the quantisers are `doing` something; returns how many there were."""
    for quantiser in quantisers:
        setattr(quantiser, doing, True)
    observed, count = Observed(net).set_train(False), 0
    for image in images:
        observed(image)
        count += 1
    for quantiser in quantisers:
        setattr(quantiser, doing, False)
    return count


def search(net: nn.Cell, quantisers: Sequence[nn.Cell], images: Iterable[Tensor], method: str) -> None:
    """Replace the ranges, which are the extremes, by what `method` finds in the histograms between them."""
    started = {}
    for index, quantiser in enumerate(quantisers):
        range_ = quantiser.range.asnumpy()
        started[index] = Histogram.over(float(range_[0]), float(range_[1]))
        ops.assign(quantiser.range, Tensor([started[index].least, started[index].greatest], ms.float32))
        quantiser.counts = Parameter(Tensor(np.zeros(BINS), ms.float32), name=f"{quantiser.name}.counts")
    passed(net, quantisers, images, "counting")
    for index, quantiser in enumerate(quantisers):
        started[index].counts = quantiser.counts.asnumpy().astype(np.float64)
        del quantiser.counts
        ops.assign(quantiser.range, Tensor(SEARCHES[method](started[index], quantiser.grid), ms.float32))
