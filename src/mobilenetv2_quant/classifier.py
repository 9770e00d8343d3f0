"""What the task of classification has to know of MobileNetV2-quant."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from src.mobilenetv2.classifier import MOBILENETV2
from src.mobilenetv2.lr_generator import Rates, get_lr
from src.mobilenetv2.network import MobileNetV2
from src.mobilenetv2_quant import network
from src.mobilenetv2_quant.config import Config

GRID_KEYS = (
    "quant_method", "weight_bits", "weight_symmetric", "weight_per_channel", "weight_narrow_range",
    "activation_bits", "activation_symmetric", "activation_narrow_range", "float_layers",
)  # fmt: skip


def grids(cfg: Config) -> dict:
    """What decides the meaning of a checkpoint's numbers."""
    return {key: getattr(cfg, key) for key in GRID_KEYS}


def build(classes: int, cfg: Config, activation: str = "None") -> MobileNetV2:
    return network.build(classes, cfg, "off", activation)


def learning_rates(cfg: Config, steps_per_epoch: int) -> np.ndarray:
    """The end of the cosine that begins with `start_epoch` epochs of float training."""
    rates = Rates(cfg.lr_init, cfg.lr_end, cfg.lr_max)
    epochs = cfg.start_epoch + cfg.epoch_size
    return get_lr(rates, cfg.warmup_epochs, epochs, steps_per_epoch, cfg.start_epoch)


def metadata(cfg: Config) -> dict:
    return {**MOBILENETV2.metadata(cfg), "quantisation": grids(cfg)}


# No graph: what evaluates has to compute with the grids, as training does.
MOBILENETV2_QUANT = replace(
    MOBILENETV2, name="mobilenetv2_quant", build=build, learning_rates=learning_rates, metadata=metadata, graph=None
)
