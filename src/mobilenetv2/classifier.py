"""What the task of classification has to know of MobileNetV2."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from src.classification.classifier import Classifier
from src.mobilenetv2 import network, onnx_graph
from src.mobilenetv2.config import Config
from src.mobilenetv2.dataset import TRANSFORMS
from src.mobilenetv2.loss import cross_entropy
from src.mobilenetv2.lr_generator import Rates, get_lr
from src.mobilenetv2.names import from_model_zoo

if TYPE_CHECKING:
    import onnx


def build(classes: int, cfg: Config, activation: str = "None") -> network.MobileNetV2:
    return network.build(classes, cfg.width_mult, cfg.seed, activation, cfg.output_stride)


def learning_rates(cfg: Config, steps_per_epoch: int) -> np.ndarray:
    rates = Rates(cfg.lr_init, cfg.lr_end, cfg.lr_max)
    return get_lr(rates, cfg.warmup_epochs, cfg.epoch_size, steps_per_epoch)


def metadata(cfg: Config) -> dict:
    return {"width_mult": cfg.width_mult, "output_stride": cfg.output_stride, "crop_pct": cfg.crop_pct}


def graph(arrays: dict[str, np.ndarray], cfg: Config, stored: dict, until_pooled: bool) -> onnx.ModelProto:
    """The network of `arrays` for images of the configuration's size; `stored` is its metadata."""
    size = cfg.image_height, cfg.image_width
    return onnx_graph.model(arrays, size, cfg.output_stride, stored, until_pooled)


MOBILENETV2 = Classifier(
    name="mobilenetv2",
    transforms=TRANSFORMS,
    build=build,
    loss=cross_entropy,
    learning_rates=learning_rates,
    classifier="head.dense.weight",
    metadata=metadata,
    older={"output_stride": 32, "crop_pct": 0.875},
    may_change=("output_stride", "crop_pct"),
    translate=from_model_zoo,
    graph=graph,
)
