"""Writing the network of a checkpoint as MINDIR, ONNX or AIR, and saying how close the file is."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TypeVar

import numpy as np
from mindspore import nn

from src.classification.classifier import Classifier
from src.classification.config import Config
from src.classification.dataset import example_batch
from src.engine.data.image_folder import EVAL_FOLDERS, scan
from src.engine.export import exporting
from src.engine.io.checkpoint import Checkpoint

AnyConfig = TypeVar("AnyConfig", bound=Config)


def metadata(checkpoint: Checkpoint, cfg: Config) -> dict:
    """What travels with an exported file."""
    return {**checkpoint.meta, "activation": cfg.activation, "image_size": [cfg.image_height, cfg.image_width]}


def inputs(model: Classifier, cfg: Config) -> dict[str, np.ndarray]:
    """What the file is compared with the network on; the first one has the exported shape."""
    data = scan(cfg.dataset_path, EVAL_FOLDERS) if cfg.dataset_path else None
    shape = (cfg.batch_size_export, 3, cfg.image_height, cfg.image_width)
    real = example_batch(data, cfg.batch_size_export, model.transforms, cfg)
    found = {"random": exporting.random_input(shape, cfg.seed), "real": real}
    if cfg.dynamic_batch:
        larger = (cfg.batch_size_export + 1, *shape[1:])
        found[f"random (batch {larger[0]})"] = exporting.random_input(larger, cfg.seed)
    return found


def beside(cfg: AnyConfig) -> AnyConfig:
    """What asks for the ONNX file beside a MINDIR file."""
    return dataclasses.replace(cfg, file_format="ONNX", file_name=exporting.onnx_beside(cfg.file_name))


def run(model: Classifier, net: nn.Cell, checkpoint: Checkpoint, cfg: Config) -> None:
    """Write the file, read it back (not AIR), compare it with the network and say how far they are apart."""
    target = exporting.Target(
        Path(cfg.file_name).expanduser(), cfg.file_format, metadata(checkpoint, cfg), cfg.dynamic_batch
    )
    exporting.tell(*exporting.export(net, target, inputs(model, cfg)))
