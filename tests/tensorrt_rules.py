"""What TensorRT asks of a graph with QuantizeLinear and DequantizeLinear, as far as a graph alone shows it.

From https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/quantized-types-explicit-quantization.html
(zero point 0, int8, weights per tensor or per output channel, a DequantizeLinear between stored weights and the layer),
and https://github.com/onnx/onnx-tensorrt/issues/850 (no biases of int32).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import numpy_helper

LAYERS = ("Conv", "Gemm")
MOVING = ("Transpose", "Reshape")  # TensorRT moves a DequantizeLinear behind them
PAIR = ("QuantizeLinear", "DequantizeLinear")


def violations(model: onnx.ModelProto) -> list[str]:
    """A sentence for everything that TensorRT would refuse or compute in floats."""
    return [*_of_grids(model), *_of_layers(model)]


def _of_grids(model: onnx.ModelProto) -> Iterator[str]:
    stored = {entry.name: numpy_helper.to_array(entry) for entry in model.graph.initializer}
    readers: dict[str, list[str]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.op_type)
    for node in (node for node in model.graph.node if node.op_type in PAIR):
        source, scale, zero_point = node.input[0], stored[node.input[1]], stored[node.input[2]]
        if zero_point.dtype != np.int8 or zero_point.any():
            yield f"{node.name}: zero point {zero_point.dtype} {zero_point.ravel()[:1]}"
        if not (scale > 0).all():
            yield f"{node.name}: a scale is not positive"
        if source in stored and (stored[source].dtype != np.int8 or np.abs(stored[source].astype(int)).max() > 127):
            yield f"{node.name}: stored as {stored[source].dtype}, or beyond -127..127"
        if source not in stored and scale.size > 1:
            yield f"{node.name}: an activation with {scale.size} scales"
        if node.op_type == "QuantizeLinear" and set(readers.get(node.output[0], ())) - {"DequantizeLinear"}:
            yield f"{node.name}: whole numbers read by {readers[node.output[0]]}"


def _of_layers(model: onnx.ModelProto) -> Iterator[str]:
    stored = {entry.name: entry.data_type for entry in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    for node in (node for node in model.graph.node if node.op_type in LAYERS):
        image, weight, bias = node.input
        for name in (image, weight):
            source = makers.get(name)
            while source is not None and source.op_type in MOVING:
                source = makers.get(source.input[0])
            if source is None or source.op_type != "DequantizeLinear":
                yield f"{node.name}: {name} is on no grid"
        if stored.get(bias) != onnx.TensorProto.FLOAT:
            yield f"{node.name}: its bias is not stored in floats"
        if weight in makers:
            axis = {entry.name: entry.i for entry in makers[weight].attribute}.get("axis", 1)
            if axis != (0 if node.op_type == "Conv" else 1):  # Gemm's weight is (C_in, C_out)
                yield f"{node.name}: scales on axis {axis} of its weight"
