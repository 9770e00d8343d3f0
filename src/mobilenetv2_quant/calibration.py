"""Ranges of the activations from a few batches, before training or instead of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np
from mindspore import Tensor

from src.classification.dataset import Loader
from src.mobilenetv2.network import MobileNetV2
from src.mobilenetv2_quant import network
from src.quantisation.bias_correction import correct
from src.quantisation.calibration import observe
from src.quantisation.quantiser import LearnedActivationQuantiser, LearnedWeightQuantiser


def batches(loader: Loader, count: int) -> Iterable[np.ndarray]:
    """At most `count` batches (N, 3, H, W) of training images under the evaluation transform, drawn by the seed."""
    data, batch_size = loader.data, loader.cfg.batch_size
    wanted = min(count * batch_size, len(data) // batch_size * batch_size)
    chosen = np.random.default_rng(loader.cfg.seed).permutation(len(data))[:wanted]
    some = dataclasses.replace(loader, data=data.select(chosen))
    return (image for image, _ in some.eval_batches(batch_size))


def calibrate(
    net: MobileNetV2, images: Iterable[np.ndarray], method: str = "minmax", bias_correction: bool = False
) -> int:
    """Set every range from the float network's activations, see quantisation.calibration; the number of batches.

    Learned steps start from there.
    """
    images = list(images) if bias_correction else images
    network.set_calibrating(net, True)
    count = observe(net, list(network.activation_quantisers(net)), (Tensor(image) for image in images), method)
    network.set_calibrating(net, False)
    start_learning(net)
    if bias_correction:
        net.backbone.calibrating = True  # evaluation in whole numbers has no exact weights
        correct(net, [layer for layer in network.layers(net) if layer.quantiser], map(Tensor, images))
        net.backbone.calibrating = False
    return count


def start_learning(net: MobileNetV2) -> None:
    """Set learned steps, where there are any, from the ranges and the weights."""
    for quantiser in network.activation_quantisers(net):
        if isinstance(quantiser, LearnedActivationQuantiser):
            quantiser.start()
    for layer in network.layers(net):
        if isinstance(layer.quantiser, LearnedWeightQuantiser):
            layer.quantiser.start(layer.folded_weight().asnumpy())
