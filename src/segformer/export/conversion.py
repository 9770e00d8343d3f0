"""Writing a SegFormer as MINDIR, ONNX or AIR, for one size or for any."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import onnx
from mindspore import ops

from src.engine.export import exporting
from src.engine.io.checkpoint import Checkpoint
from src.segformer import checkpoints
from src.segformer.config import Config
from src.segformer.export import onnx_graph
from src.segformer.variants import SMALLEST_SIDE

ERF_STAND_IN = {"Sin": "Erf"}  # MindSpore's ONNX export lacks Erf; Sin, which the network does not use, is put instead
BATCH = 1
OTHER_BATCH = 2  # of the second input that a file for any size is tried with


def beside(cfg: Config) -> Config:
    """What asks for the ONNX file beside a MINDIR file."""
    return dataclasses.replace(cfg, export_format="ONNX", export_name=exporting.onnx_beside(cfg.export_name))


def write_fixed_size(checkpoint: Checkpoint, cfg: Config, metadata: dict) -> tuple[Path, dict[str, float]]:
    """A file for one image of base_size. Returns its path and the largest difference to the network per input."""
    net = checkpoints.network_of(checkpoint, cfg)
    written, renamed = net, {}
    if cfg.export_format == "ONNX":
        written, renamed = checkpoints.network_of(checkpoint, cfg, erf=ops.Sin()), ERF_STAND_IN
    inputs = {"random": exporting.random_input((BATCH, 3, *cfg.base_size), cfg.seed)}
    target = exporting.Target(Path(cfg.export_name).expanduser(), cfg.export_format, metadata, renamed=renamed)
    return exporting.export(net, target, inputs, written)


def write_any_size(checkpoint: Checkpoint, cfg: Config, metadata: dict) -> tuple[Path, dict[str, float]]:
    """ONNX for any number of images of any size, tried at base_size and with two images of an odd size."""
    net = checkpoints.network_of(checkpoint, cfg)
    graph = onnx_graph.Graph({parameter.name: parameter.asnumpy() for parameter in net.get_parameters()})
    model = onnx_graph.model(graph, cfg.backbone, metadata)
    height, width = (max(side // 2, SMALLEST_SIDE) + 5 for side in cfg.base_size)
    inputs = {
        "random": exporting.random_input((BATCH, 3, *cfg.base_size), cfg.seed),
        f"{OTHER_BATCH} x {height} x {width} random": exporting.random_input((OTHER_BATCH, 3, height, width), cfg.seed),
    }
    path = exporting.path_of(Path(cfg.export_name).expanduser(), cfg.export_format)
    return path, exporting.replace_checked(path, lambda file: onnx.save(model, str(file)), net, inputs)
