"""Small networks as ONNX files, real enough for what is tested with them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from src.engine.image_folder import scan
from src.engine.onnx_model import META_KEY
from src.mobilenetv2 import dataset

SIZE = 32
POOL = 4  # a digit is 8x8 pixels, drawn at 32x32


def save(file: Path, nodes: list, weights: dict, outputs: dict[str, tuple], shape: tuple, about: dict | None = None):
    """Write a network with the input "image"; `outputs` are names and shapes."""
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    if about:
        helper.set_model_props(model, {META_KEY: json.dumps(about)})
    onnx.checker.check_model(model)
    onnx.save(model, str(file))
    return file


def classifier(file: Path, weight: np.ndarray, bias: np.ndarray, about: dict | None = None, quantised: bool = False):
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
    return save(file, nodes, weights, {"scores": ("batch", len(bias))}, shape, about)


def random_classifier(file: Path, classes: int = 10, **options) -> Path:
    rng = np.random.default_rng(1)
    return classifier(file, rng.normal(size=(3 * 64, classes)), rng.normal(size=classes), **options)


def digits_classifier(file: Path, train: Path) -> Path:
    """Trained on the digits, as the evaluation of MobileNetV2 sees them, by logistic regression."""
    from sklearn.linear_model import LogisticRegression

    from src.engine import images

    folder = scan(str(train), ())
    planes = np.stack([dataset.eval_transform(images.read(folder.path(i)), SIZE, SIZE) for i in range(len(folder))])
    pooled = planes.reshape(len(planes), 3, 8, POOL, 8, POOL).mean((3, 5)).reshape(len(planes), -1)
    model = LogisticRegression(C=0.01, max_iter=200).fit(pooled, folder.labels)
    return classifier(file, model.coef_.T, model.intercept_, {"class_to_index": folder.class_to_index})


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
