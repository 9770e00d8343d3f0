"""Ranges of the activations from a few batches, before training or instead of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from src.classification.dataset import Loader
from src.mobilenetv2.network import MobileNetV2
from src.mobilenetv2_quant import network
from src.mobilenetv2_quant.quantiser import LearnedActivationQuantiser, LearnedWeightQuantiser


class Observed(nn.Cell):
    """A cell of its own, because graphs are kept by cell and this one is compiled while the quantisers add up."""

    def __init__(self, net: nn.Cell):
        super().__init__(auto_prefix=False)
        self.net = net

    def construct(self, image: Tensor) -> Tensor:
        return self.net(image)


def batches(loader: Loader, count: int) -> Iterable[np.ndarray]:
    """At most `count` batches (N, 3, H, W) of training images under the evaluation transform, drawn by the seed."""
    data, batch_size = loader.data, loader.cfg.batch_size
    wanted = min(count * batch_size, len(data) // batch_size * batch_size)
    chosen = np.random.default_rng(loader.cfg.seed).permutation(len(data))[:wanted]
    some = dataclasses.replace(loader, data=data.select(chosen))
    return (image for image, _ in some.eval_batches(batch_size))


def calibrate(net: MobileNetV2, images: Iterable[np.ndarray]) -> int:
    """Set every range to the mean of the batches' extremes in the float network; returns the number of batches.

    Learned steps start from there.
    """
    quantisers = list(network.activation_quantisers(net))
    for quantiser in quantisers:
        ops.assign(quantiser.range, Tensor(np.zeros(2), ms.float32))
    network.set_calibrating(net, True)
    observed, count = Observed(net).set_train(False), 0
    for image in images:
        observed(Tensor(image))
        count += 1
    network.set_calibrating(net, False)
    for quantiser in quantisers:
        ops.assign(quantiser.range, quantiser.range / count)
    start_learning(net)
    return count


def start_learning(net: MobileNetV2) -> None:
    """Set learned steps, where there are any, from the ranges and the weights."""
    for quantiser in network.activation_quantisers(net):
        if isinstance(quantiser, LearnedActivationQuantiser):
            quantiser.start()
    for layer in network.layers(net):
        if isinstance(layer.quantiser, LearnedWeightQuantiser):
            layer.quantiser.start(layer.folded_weight().asnumpy())
