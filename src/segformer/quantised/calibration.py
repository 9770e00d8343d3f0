"""Ranges of a quantised SegFormer's activations from a few batches of training images."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from mindspore import Tensor

from src.engine.data import images
from src.quantisation.bias_correction import correct
from src.quantisation.calibration import observe
from src.segformer.config import Config
from src.segformer.data import dataset
from src.segformer.data.dataset import Pairs
from src.segformer.network import QuarterLogits, SegFormer
from src.segformer.predicting.prediction import padded
from src.segformer.quantised import network


def views(pairs: Pairs, cfg: Config, count: int) -> Iterator[np.ndarray]:
    """At most `count` readable images (1, 3, H, W) as evaluation sees them, drawn by the seed.

    All have one size, base_size (crop_size with native_size): what is larger is cut, what is smaller padded.
    """
    height, width = cfg.crop_size if cfg.native_size else cfg.base_size
    found = 0
    for index in np.random.default_rng(cfg.seed).permutation(len(pairs)):
        try:
            picture, _ = pairs.read(int(index))
        except images.BadImage:
            continue  # training names it
        yield padded(dataset.eval_transform(picture, cfg)[:, :height, :width], height, width)
        found += 1
        if found == count:
            return


def batches(pairs: Pairs, cfg: Config, count: int) -> Iterator[Tensor]:
    """At most `count` full batches (N, 3, H, W)."""
    waiting: list[np.ndarray] = []
    for view in views(pairs, cfg, count * cfg.batch_size):
        waiting.append(view)
        if len(waiting) == cfg.batch_size:
            yield Tensor(np.concatenate(waiting))
            waiting = []


def calibrate(net: SegFormer, pairs: Pairs, cfg: Config, count: int) -> int:
    """Set every range from the float network's activations, by calibration_method; returns the number of batches."""
    network.set_calibrating(net, True)
    logits = QuarterLogits(net)
    quantisers = list(network.activation_quantisers(net))
    done = observe(logits, quantisers, batches(pairs, cfg, count), cfg.calibration_method)
    network.set_calibrating(net, False)
    if cfg.corrects_biases:
        correct(logits, list(network.layers(net)), batches(pairs, cfg, count))
    return done
