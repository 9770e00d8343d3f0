"""An ONNX graph with QuantizeLinear and DequantizeLinear. No MindSpore here."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from src.engine.export import onnx_graph
from src.quantisation.config import TENSORRT
from src.quantisation.weights import FoldedOnGrid, whole_bias

# Activations are stored as uint8, q + 128: the same grid. Of int8, onnxruntime on x86 turns a tensor with one reader
# into uint8 and not one with two, and then has no integer kernel for what reads both.
UNSIGNED = 128


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

    def __init__(self, target: str = "onnxruntime"):
        super().__init__()
        self.is_for_tensorrt = target == TENSORRT
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
        return self.node("DequantizeLinear", [self.constant(f"{name}.whole", whole), *parameters], name, **attributes)

    def bias(self, name: str, folded: FoldedOnGrid, source: OnGrid | None) -> str:
        """A layer's bias: int32 on the scale of the sums of products, float where there is none or TensorRT reads it.

        TensorRT's parser refuses biases of int32 (https://github.com/onnx/onnx-tensorrt/issues/850).
        """
        if source is None or self.is_for_tensorrt:
            return self.constant(f"{name}.bias", folded.bias)
        scale = source.scale * folded.scale
        return self.dequantised(f"{name}.bias", whole_bias(folded.bias, scale), scale, np.zeros(len(scale)), axis=0)
