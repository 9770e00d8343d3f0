"""Export of a quantised SegFormer: the ONNX file of integers, its proof, and the report per layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from src.cpu_kernels import availability
from src.engine import loop
from src.engine.data.source import first_pictures
from src.engine.errors import ZooError
from src.engine.export import exporting
from src.engine.io.checkpoint import Checkpoint
from src.quantisation import integer_file, layer_report
from src.segformer import checkpoints
from src.segformer.config import Config
from src.segformer.data import dataset
from src.segformer.export import conversion, onnx_graph
from src.segformer.export.onnx_graph import Graph, Scale
from src.segformer.network import SegFormer
from src.segformer.predicting import pictures
from src.segformer.predicting.prediction import padded
from src.segformer.quantised.network import activation_quantisers

TOLERANCE = 0.2  # share of the spread of the network's logits; sums that are rounded differently move some by a step


def run(checkpoint: Checkpoint, cfg: Config, metadata: dict) -> int:
    """Write the simulated network as MINDIR or AIR, and the integer network as ONNX, alone or beside MINDIR."""
    if cfg.export_format != "ONNX":
        exporting.tell(*conversion.write_fixed_size(checkpoint, cfg, metadata))
        if cfg.export_format == "AIR":
            return 0
        cfg = conversion.beside(cfg)
    library, _ = availability.find_library(cfg.cpu_kernels if cfg.device == "CPU" else "off")
    net = checkpoints.network_of(checkpoint, cfg, library)
    cfg.require_target(all(quantiser.grid.symmetric for quantiser in activation_quantisers(net)))
    arrays = {parameter.name: parameter.asnumpy() for parameter in net.get_parameters()}
    graph = Graph(arrays, grids_of(net), cfg.onnx_target)
    sides = onnx_graph.FREE if cfg.dynamic_size else (conversion.BATCH, *cfg.base_size)
    model = onnx_graph.model(graph, cfg.backbone, metadata, sides)
    path = exporting.path_of(Path(cfg.export_name).expanduser(), "ONNX")
    views = example_views(cfg)
    found = integer_file.write(model, loop.predictor(net), path, {"image": views[: conversion.BATCH]}, TOLERANCE)
    exporting.tell(path, found)
    if graph.coarser:
        print(f"{graph.coarser} channels have coarser weights than trained, so that their biases fit into 32 bits")
    integer_file.tell_kernels(path, onnx_graph.RESIZED)
    integer_file.write_report(layer_report.measure(model, graph, views), path, cfg.report_path)
    return 0


def grids_of(net: SegFormer) -> dict[str, Scale]:
    """The activations' grids by name, for the writer of the graph."""
    activations = {}
    for quantiser in activation_quantisers(net):
        scale, zero_point = (value.asnumpy() for value in quantiser.scale_and_zero_point())
        activations[quantiser.name] = Scale(scale, zero_point)
    return activations


def example_views(cfg: Config) -> np.ndarray:
    """`report_images` pictures (N, 3, *base_size) as evaluation sees them: data_path's, or scikit-learn's two."""
    if Path(cfg.data_path).expanduser().exists():
        inputs = pictures.list_inputs(cfg.data_path, cfg.infer_output_path)
        found = first_pictures(inputs[0].source, cfg.report_images)
        if not found:
            raise ZooError(f"data_path {cfg.data_path} holds no picture that can be read; check it")
    else:
        from sklearn.datasets import load_sample_images

        found = load_sample_images().images
    height, width = cfg.base_size
    chosen = (found[index % len(found)] for index in range(cfg.report_images))
    views = (dataset.eval_transform(picture, cfg, 1.0)[:, :height, :width] for picture in chosen)
    return np.concatenate([padded(view, height, width) for view in views])
