"""Small networks as ONNX files, real enough for what is tested with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE = 32
POOL = 4  # pixels that are averaged


def save(file: Path, nodes: list, weights: dict, outputs: dict[str, tuple], shape: tuple):
    """Write a network with the input "image"; `outputs` are names and shapes."""
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(file))
    return file


def classifier(file: Path, weight: np.ndarray, bias: np.ndarray, quantised: bool = False):
    """Mean of 4x4 pixels, then one matrix; (3 * 8 * 8, classes) `weight`. Quantised: 8-bit input and weights (QDQ)."""
    pooled, matrix, weights = "pooled", "weight", {"weight": weight.astype(np.float32), "bias": bias.astype(np.float32)}
    nodes = [helper.make_node("AveragePool", ["image"], ["pooled"], kernel_shape=[POOL] * 2, strides=[POOL] * 2)]
    if quantised:
        scale = np.float32(np.abs(weight).max() / 127)
        weights["weight"] = np.clip(np.round(weight / scale), -127, 127).astype(np.int8)
        weights |= {"step": np.float32(6 / 255), "zero": np.uint8(128), "scale": scale, "middle": np.int8(0)}
        nodes += [
            helper.make_node("QuantizeLinear", ["pooled", "step", "zero"], ["bytes"]),
            helper.make_node("DequantizeLinear", ["bytes", "step", "zero"], ["rounded"]),
            helper.make_node("DequantizeLinear", ["weight", "scale", "middle"], ["matrix"]),
        ]
        pooled, matrix = "rounded", "matrix"
    nodes += [
        helper.make_node("Flatten", [pooled], ["flat"]),
        helper.make_node("Gemm", ["flat", matrix, "bias"], ["scores"]),
    ]
    shape = ("batch", 3, SIZE, SIZE)
    return save(file, nodes, weights, {"scores": ("batch", len(bias))}, shape)


def random_classifier(file: Path, classes: int = 10, quantised: bool = False) -> Path:
    rng = np.random.default_rng(1)
    return classifier(file, rng.normal(size=(3 * 64, classes)), rng.normal(size=classes), quantised)


def segmenter(file: Path, classes: int = 5, height: int = 64, width: int = 128) -> Path:
    """Score maps of a quarter of the input's size."""
    weight = np.random.default_rng(2).normal(size=(classes, 3, 4, 4)).astype(np.float32)
    nodes = [helper.make_node("Conv", ["image", "weight"], ["maps"], kernel_shape=[4, 4], strides=[4, 4])]
    shape = (1, 3, height, width)
    return save(file, nodes, {"weight": weight}, {"maps": (1, classes, height // 4, width // 4)}, shape)


def two_outputs(file: Path) -> Path:
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("ReduceMax", ["image"], ["highest"], axes=[2, 3], keepdims=0),
    ]
    return save(file, nodes, {}, {"mean": (1, 3), "highest": (1, 3)}, (1, 3, SIZE, SIZE))
