"""Writing the network of a checkpoint as MINDIR, ONNX or AIR, and saying how close the file is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from mindspore import nn

from src.classification.classifier import Classifier
from src.classification.config import Config
from src.classification.dataset import example_batch
from src.engine.data.image_folder import EVAL_FOLDERS, scan
from src.engine.export import exporting
from src.engine.io.checkpoint import Checkpoint


def metadata(checkpoint: Checkpoint, cfg: Config) -> dict:
    """What travels with an exported file."""
    return {**checkpoint.meta, "activation": cfg.activation, "image_size": [cfg.image_height, cfg.image_width]}


def inputs(model: Classifier, cfg: Config) -> dict[str, np.ndarray]:
    """What the file is compared with the network on; the first one has the exported shape."""
    data = scan(cfg.dataset_path, EVAL_FOLDERS) if cfg.dataset_path else None
    shape = (cfg.batch_size_export, 3, cfg.image_height, cfg.image_width)
    real = example_batch(data, shape, model.transforms)
    found = {"random": exporting.random_input(shape, cfg.seed), "real": real}
    if cfg.dynamic_batch:
        larger = (cfg.batch_size_export + 1, *shape[1:])
        found[f"random (batch {larger[0]})"] = exporting.random_input(larger, cfg.seed)
    return found


def run(model: Classifier, net: nn.Cell, checkpoint: Checkpoint, cfg: Config) -> int:
    """Write the file, read it back, compare it with the network and say how far they are apart."""
    target = exporting.Target(
        Path(cfg.file_name).expanduser(), cfg.file_format, metadata(checkpoint, cfg), cfg.dynamic_batch
    )
    tell(*exporting.export(net, target, inputs(model, cfg)))
    return 0


def tell(exported: Path, found: dict[str, float]) -> None:
    for kind, difference in found.items():
        print(f"largest difference to the network on {kind} input: {difference:.3g}")
    print(f"exported {exported} ({exported.stat().st_size / 1e6:.1f} MB)")
