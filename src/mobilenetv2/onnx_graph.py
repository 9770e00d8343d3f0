"""MobileNetV2 as an ONNX graph of floats with BN folded, written node by node: what onnxruntime evaluates on CPU.

It is made of arrays alone, so that weights which training has just changed are scored without compiling a graph.
"""

from __future__ import annotations

from collections.abc import Mapping

import mindspore  # noqa: F401 (before onnx: the other way round protobuf ends the process)
import numpy as np
import onnx

from src.engine.export.onnx_graph import IMAGE, SCORES, Graph
from src.mobilenetv2.network import BN_EPS, blocks, first_strides

RELU6 = 6.0
FEATURES = "features"


class Writer:
    """Writes network.py's layers into `graph` in the order of computation; `arrays` are its parameters by name."""

    def __init__(self, arrays: Mapping[str, np.ndarray]):
        self.graph, self.arrays = Graph(), arrays

    def backbone(self, output_stride: int) -> str:
        """The image -> feature map (N, C, h, w)."""
        table = blocks(output_stride)
        x = self.conv_bn_relu6(IMAGE, "backbone.features.0", first_strides(output_stride)[0])
        for index, (_, _, stride, shortcut) in enumerate(table, start=1):
            x = self.block(x, f"backbone.features.{index}", stride, shortcut)
        return self.conv_bn_relu6(x, f"backbone.features.{len(table) + 1}")

    def block(self, x: str, name: str, stride: int, shortcut: bool) -> str:
        """An inverted residual: (N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
        conv, out = f"{name}.conv", x
        expands = f"{conv}.2.weight" in self.arrays
        if expands:
            out = self.conv_bn_relu6(x, f"{conv}.0")
        depthwise = int(expands)
        out = self.conv_bn_relu6(out, f"{conv}.{depthwise}", stride)
        out = self.conv_bn(out, f"{conv}.{depthwise + 1}", f"{conv}.{depthwise + 2}")
        first, last = self.arrays[f"{conv}.0.0.weight"], self.arrays[f"{conv}.{depthwise + 1}.weight"]
        channels = first.shape[1] if expands else first.shape[0]
        return self.graph.node("Add", [x, out], f"{name}.output") if shortcut and channels == last.shape[0] else out

    def conv_bn_relu6(self, x: str, name: str, stride: int = 1) -> str:
        """(N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
        return self.graph.clip(self.conv_bn(x, f"{name}.0", f"{name}.1", stride), 0, RELU6, f"{name}.relu6")

    def conv_bn(self, x: str, conv: str, norm: str, stride: int = 1) -> str:
        """A convolution, (N, C_in, H, W) -> (N, C_out, H / stride, W / stride), with the BN after it folded in."""
        weight = self.arrays[f"{conv}.weight"]
        gamma, beta, mean, variance = (
            self.arrays[f"{norm}.{part}"].astype(np.float64)
            for part in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        scale = gamma / np.sqrt(variance + BN_EPS)
        tensors = (
            self.graph.constant(f"{conv}.weight", (weight * scale[:, None, None, None]).astype(np.float32)),
            self.graph.constant(f"{conv}.bias", (beta - mean * scale).astype(np.float32)),
        )
        channels, inputs, kernel, _ = weight.shape
        return self.graph.convolution(
            x, tensors, f"{conv}.output", kernel, stride, group=channels if inputs == 1 else 1
        )

    def pooled(self, x: str) -> str:
        """Feature map (N, C, h, w) -> (N, C)."""
        return self.graph.node("Flatten", [self.graph.node("GlobalAveragePool", [x], "pooled")], FEATURES)

    def head(self, features: str) -> str:
        """(N, C) -> logits (N, K)."""
        tensors = [self.graph.constant(name, self.arrays[name]) for name in ("head.dense.weight", "head.dense.bias")]
        return self.graph.node("Gemm", [features, *tensors], SCORES, transB=1)


def model(
    arrays: Mapping[str, np.ndarray], size: tuple[int, int], output_stride: int, metadata: dict, until_pooled: bool
) -> onnx.ModelProto:
    """The checked model of any batch size, for images of `size`: `image` -> logits, or the pooled features."""
    writer = Writer(arrays)
    last = writer.pooled(writer.backbone(output_stride))
    count = arrays["head.dense.weight"].shape[1]
    if not until_pooled:
        last, count = writer.head(last), arrays["head.dense.weight"].shape[0]
    return writer.graph.checked("mobilenetv2", ["batch", 3, *size], (last, ["batch", count]), metadata)
