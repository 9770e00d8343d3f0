"""Small ONNX files with known answers. Import MindSpore first where it is needed: it chooses what protobuf runs on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from src.engine.export import onnx_model
from tests.conftest import CLASSES

SIDE = 16


def write_colour_classifier(
    path: Path, batch: int | str, names: tuple[str, ...] | None = CLASSES, scale: float = 1.0
) -> None:
    """An ONNX file for `batch` images of three classes: the mean of red, green and blue in the classes' order.

    It does not name its classes where `names` is None.
    """
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["x"], ["means"], axes=[2, 3], keepdims=0),
            helper.make_node("MatMul", ["means", "order"], ["y"]),
        ],
        "colours",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 3])],
        [numpy_helper.from_array(scale * np.eye(3, dtype=np.float32)[::-1], "order")],  # the first class is blue
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)])
    model.ir_version = 8
    if names is not None:
        onnx_model.store_metadata(model, {"class_to_index": {name: index for index, name in enumerate(names)}})
    onnx.save(model, str(path))
