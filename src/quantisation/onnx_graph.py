"""An ONNX graph with QuantizeLinear and DequantizeLinear. No MindSpore here."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

from src.engine.export import onnx_graph
from src.quantisation.config import TENSORRT
from src.quantisation.weights import FoldedOnGrid, whole_bias

# Activations are stored as uint8, q + 128: the same grid. Of int8, onnxruntime on x86 turns a tensor with one reader
# into uint8 and not one with two, and then has no integer kernel for what reads both.
UNSIGNED = 128
INT4_OPSET = 21
# https://github.com/microsoft/onnxruntime/pull/24973 lets it read the type; Python 3.9 gets an older one.
READS_INT4 = tuple(int(part) for part in onnxruntime.__version__.split(".")[:2]) >= (1, 23)


class OnGrid(NamedTuple):
    """A tensor before and after quantisation, by name, and its grid."""

    name: str
    before: str
    after: str
    scale: np.float32
    zero_point: int
    is_again: bool  # the tensor was on this grid before
    least: float  # limits of ReLU6 where the grid's own do its work, infinite otherwise
    greatest: float


class Graph(onnx_graph.Graph):
    """A growing graph with grids; every method returns the name of the tensor that it adds."""

    def __init__(self, target: str = "onnxruntime", weight_bits: int = 8):
        super().__init__()
        self.is_for_tensorrt = target == TENSORRT
        self.stores_int4 = weight_bits <= 4 and READS_INT4 and not self.is_for_tensorrt
        self.opset = INT4_OPSET if self.stores_int4 else onnx_graph.OPSET
        self.grids: dict[str, OnGrid] = {}  # by the name of the tensor after quantisation

    def on_grid(
        self,
        tensor: str,
        name: str,
        scale: np.ndarray,
        zero_point: np.ndarray,
        is_again: bool = False,
        limits: tuple[float, float] = (-np.inf, np.inf),
    ) -> str:
        """QuantizeLinear and DequantizeLinear with one float32 scale and the zero point of -128..127, as uint8.

        TensorRT gets int8, of which it takes zero point 0 only.
        """
        number = int(zero_point.item())
        grid = OnGrid(name, tensor, f"{name}.float", np.float32(scale.item()), number, is_again, *limits)
        return self.pair(grid, np.int8(number) if self.is_for_tensorrt else np.uint8(number + UNSIGNED))

    def on_signed_grid(self, tensor: str, name: str, scale: np.ndarray) -> str:
        """As `on_grid`, stored as int8 with zero point 0: what a product of two activations asks of its second one."""
        grid = OnGrid(name, tensor, f"{name}.float", np.float32(scale.item()), 0, False, -np.inf, np.inf)
        return self.pair(grid, np.int8(0))

    def pair(self, grid: OnGrid, zero_point: np.int8 | np.uint8) -> str:
        """The two nodes of a grid, whose whole numbers are stored in the type of `zero_point`."""
        parameters = [
            self.constant(f"{grid.name}.scale", grid.scale),
            self.constant(f"{grid.name}.zero_point", zero_point),
        ]
        whole = self.node("QuantizeLinear", [grid.before, *parameters], f"{grid.name}.{zero_point.dtype}")
        self.grids[grid.after] = grid
        return self.node("DequantizeLinear", [whole, *parameters], grid.after)

    def dequantised(self, name: str, whole: np.ndarray, scale: np.ndarray, zero_point: np.ndarray, axis: int) -> str:
        """A stored integer tensor as float; scale and zero point (R,), per channel of `axis` unless R is 1."""
        per_channel = len(scale) > 1
        parameters = [
            self.constant(f"{name}.scale", scale if per_channel else scale[0]),
            self.constant(f"{name}.zero_point", (zero_point if per_channel else zero_point[0]).astype(whole.dtype)),
        ]
        attributes = {"axis": axis} if per_channel else {}
        packs = self.stores_int4 and whole.dtype == np.int8
        stored = self.in_four_bits(f"{name}.whole", whole) if packs else self.constant(f"{name}.whole", whole)
        return self.node("DequantizeLinear", [stored, *parameters], name, **attributes)

    def in_four_bits(self, name: str, whole: np.ndarray) -> str:
        """Numbers of -8..7, two to a byte. Runtimes cast them to int8 once, when they load the file.

        As int8 they meet the integer kernels, of which there are none for INT4.
        """
        pairs = np.append(whole.reshape(-1), np.zeros(whole.size % 2, np.int8)).reshape(-1, 2).view(np.uint8) & 15
        packed = (pairs[:, 0] | pairs[:, 1] << 4).astype(np.uint8).tobytes()
        self.constants.append(helper.make_tensor(f"{name}.int4", TensorProto.INT4, whole.shape, packed, raw=True))
        return self.node("Cast", [f"{name}.int4"], name, to=TensorProto.INT8)

    def bias(self, name: str, folded: FoldedOnGrid, source: OnGrid | None) -> str:
        """A layer's bias: int32 on the scale of the sums of products, float where there is none or TensorRT reads it.

        TensorRT's parser refuses biases of int32 (https://github.com/onnx/onnx-tensorrt/issues/850).
        """
        if source is None or self.is_for_tensorrt:
            return self.constant(f"{name}.bias", folded.bias)
        scale = source.scale * folded.scale
        return self.dequantised(f"{name}.bias", whole_bias(folded.bias, scale), scale, np.zeros(len(scale)), axis=0)
