"""Writing the network of a checkpoint as MINDIR, ONNX or AIR; MobileNetV2-quant's too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from mindspore import nn

from src.engine.data.image_folder import EVAL_FOLDERS, scan
from src.engine.export import exporting
from src.engine.io.checkpoint import Checkpoint
from src.mobilenetv2 import dataset
from src.mobilenetv2.config import Config


def about(stored: Checkpoint, cfg: Config) -> dict:
    """What travels with an exported file."""
    return {**stored.meta, "activation": cfg.activation, "image_size": [cfg.image_height, cfg.image_width]}


def inputs(cfg: Config) -> dict[str, np.ndarray]:
    """What the file is compared with the network on; the first one has the exported shape."""
    folder = scan(cfg.dataset_path, EVAL_FOLDERS) if cfg.dataset_path else None
    shape = (cfg.batch_size_export, 3, cfg.image_height, cfg.image_width)
    found = {"random": exporting.random_input(shape, cfg.seed), "real": dataset.example_batch(folder, shape)}
    if cfg.dynamic_batch:
        larger = (cfg.batch_size_export + 1, *shape[1:])
        found[f"random (batch {larger[0]})"] = exporting.random_input(larger, cfg.seed)
    return found


def run(net: nn.Cell, stored: Checkpoint, cfg: Config) -> int:
    """Write the file, read it back, compare it with the network and say how far they are apart."""
    file = Path(cfg.file_name).expanduser()
    exported, found = exporting.export(net, file, cfg.file_format, about(stored, cfg), inputs(cfg), cfg.dynamic_batch)
    tell(exported, found)
    return 0


def tell(exported: Path, found: dict[str, float]) -> None:
    for kind, difference in found.items():
        print(f"largest difference to the network on {kind} input: {difference:.3g}")
    print(f"exported {exported} ({exported.stat().st_size / 1e6:.1f} MB)")
