"""The quantised network as an ONNX graph that integer kernels run: BN folded, int8 or INT4 weights, trained scales."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from mindspore import nn

from src.engine.export.onnx_graph import IMAGE, SCORES
from src.mobilenetv2.network import InvertedResidual, MobileNetV2
from src.mobilenetv2_quant import folding
from src.mobilenetv2_quant.network import ACTIVATION_QUANTISERS, QuantConv, QuantDense, QuantSum
from src.quantisation import weights
from src.quantisation.onnx_graph import Graph
from src.quantisation.quantiser import RELU6

if TYPE_CHECKING:
    import onnx


class Writer:
    """Writes cells into `graph` in the order of computation; `folded` collects the layers with integer weights."""

    def __init__(self, target: str = "onnxruntime", weight_bits: int = 8):
        self.graph = Graph(target, weight_bits)
        self.folded: list[weights.FoldedOnGrid] = []
        self.coarser = 0  # channels whose weights were made coarser so that their bias fits
        self.clipped = 0  # ReLU6 that the grid after it does not do, so that no integer kernel runs the layer

    def network(self, net: MobileNetV2) -> None:
        backbone, x = net.backbone, IMAGE
        if backbone.image is not None:
            x = self.quantised(x, backbone.image)
        for block in backbone.features.cell_list:
            x = self.block(x, block)
        x = self.graph.node("GlobalAveragePool", [x], "pooled")
        if backbone.pooled is not None:
            x = self.quantised(x, backbone.pooled)
        x = self.graph.node("Flatten", [x], "features")  # (N, C, 1, 1) -> (N, C)
        if backbone.pooled is not None:
            x = self.quantised(x, backbone.pooled, again="backbone.features_2d")
        is_last = net.activation == "None"
        x = self.dense(x, net.head.dense, SCORES if is_last else "logits")
        if not is_last:
            attributes = {"axis": 1} if net.activation == "Softmax" else {}
            self.graph.node(net.activation, [x], SCORES, **attributes)

    def model(self, shape: tuple[int, ...], classes: int, batch: int | str, metadata: dict) -> onnx.ModelProto:
        """The checked model of what was written, `image` of `shape` -> `scores`; `batch` may be a symbol."""
        image, output = [batch, *shape[1:]], (SCORES, [batch, classes])
        return self.graph.checked("mobilenetv2_quant", image, output, metadata, self.graph.opset)

    def block(self, x: str, cell: nn.Cell) -> str:
        if isinstance(cell, QuantSum):
            out = self.block(x, cell.block)
            return self.quantised(self.graph.node("Add", [x, out], f"{cell.quantiser.name}.exact"), cell.quantiser)
        return self.sequence(x, cell.conv if isinstance(cell, InvertedResidual) else cell)

    def sequence(self, x: str, sequence: nn.SequentialCell) -> str:
        has_relu6 = any(isinstance(part, nn.ReLU6) for part in sequence.cell_list)
        for part in sequence.cell_list:
            if isinstance(part, nn.SequentialCell):
                x = self.sequence(x, part)
            elif isinstance(part, QuantConv):
                x = self.convolution(x, part)
            elif isinstance(part, ACTIVATION_QUANTISERS):
                x = self.relu6(x, part) if has_relu6 else self.quantised(x, part)
        return x

    def relu6(self, x: str, quantiser: nn.Cell) -> str:
        """ReLU6 and the grid; the first is left out where the grid begins at 0 and ends by 6 and so does the same."""
        scale, zero_point = (value.asnumpy().item() for value in quantiser.scale_and_zero_point())
        grid = quantiser.grid
        ends_by_6 = (grid.high - zero_point - 0.5) * scale <= RELU6
        if zero_point == grid.low and ends_by_6:
            return self.quantised(x, quantiser, limits=(0.0, RELU6))
        if self.graph.is_for_tensorrt and ends_by_6:  # joins convolution, ReLU and the grid behind them
            return self.quantised(self.graph.node("Relu", [x], f"{x}.relu"), quantiser, limits=(0.0, RELU6))
        self.clipped += 1
        return self.quantised(self.graph.clip(x, 0, RELU6, f"{x}.relu6"), quantiser)

    def quantised(self, x: str, quantiser: nn.Cell, again: str = "", limits: tuple = (-np.inf, np.inf)) -> str:
        """`x` on the quantiser's grid; `again` is another name where it was there before and was only reshaped."""
        scale, zero_point = (value.asnumpy() for value in quantiser.scale_and_zero_point())
        return self.graph.on_grid(x, again or quantiser.name, scale, zero_point, bool(again), limits)

    def convolution(self, x: str, layer: QuantConv) -> str:
        conv = layer.conv
        tensors, kernel, stride = self.weight_and_bias(x, layer, axis=0), conv.kernel_size[0], conv.stride[0]
        return self.graph.convolution(x, tensors, f"{layer.name}.exact", kernel, stride, conv.group)

    def dense(self, x: str, layer: QuantDense, output: str) -> str:
        return self.graph.node("Gemm", [x, *self.weight_and_bias(x, layer, axis=1)], output)

    def weight_and_bias(self, x: str, layer: QuantConv | QuantDense, axis: int) -> tuple[str, str]:
        """The layer's tensors, whole numbers where it and its input `x` are quantised; output channels on `axis`."""
        folded, name, source = folding.fold(layer), layer.name, self.graph.grids.get(x)
        if not isinstance(folded, weights.FoldedOnGrid):
            turned = folded.weight if axis == 0 else folded.weight.T
            return self.graph.constant(f"{name}.weight", turned), self.graph.constant(f"{name}.bias", folded.bias)
        if source is not None and not self.graph.is_for_tensorrt:
            folded, changed = folded.with_room_for_bias(source.scale)
            self.coarser += changed
        self.folded.append(folded)
        turned = folded.whole if axis == 0 else folded.whole.T
        weight = self.graph.dequantised(f"{name}.weight", turned, folded.scale, folded.zero_point, axis)
        return weight, self.graph.bias(name, folded, source)
