"""SegFormer as an ONNX graph, written node by node: in floats for images of any size, or in integers.

MindSpore's exporter writes the sizes of one image into the graph; this graph reads them from the image. The network is
that of network.py, with its parameter names; batch normalisation and the head's two matrices are multiplied in advance.
With the grids of a quantised network (quantised/network.py), convolutions, dense layers and attention's two products
are between DequantizeLinear and QuantizeLinear as integer kernels want it; the rest stays in floats.

Tokens have two sides here: (N * L, C). Shapes are those of network.py otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import mindspore  # noqa: F401 (before onnx: the other way round protobuf ends the process)
import numpy as np
import onnx

from src.engine.export.onnx_graph import IMAGE
from src.quantisation import onnx_graph, weights
from src.quantisation.grid import Grid
from src.quantisation.weights import FoldedOnGrid
from src.segformer.network import BLOCK_EPS, BN_EPS, INNER_EPS, PATCHES, bilinear_weights
from src.segformer.variants import HEADS, REDUCTIONS, VARIANTS

OPSET = 17  # the first with LayerNormalization
INTEGER_OPSET = 20  # ... with Gelu; onnxruntime joins its five older operators where they are between floats only
LOGITS, WIDE = "logits", "logits.wide"
RESIZED = (LOGITS, WIDE)  # products that are no layers
HALF, ONE = np.float32(0.5), np.float32(1)
FREE = ("batch", "height", "width")
WEIGHTS = Grid(8, symmetric=True, narrow=True)


class Scale(NamedTuple):
    """An activation's grid."""

    scale: np.ndarray
    zero_point: np.ndarray


class Graph(onnx_graph.Graph):
    """A growing graph with SegFormer's layers; every method returns the name of the tensor that it adds."""

    def __init__(
        self,
        arrays: dict[str, np.ndarray],
        activations: Mapping[str, Scale] | None = None,
        target: str = "onnxruntime",
    ):
        super().__init__(target)
        self.arrays, self.activations = arrays, activations
        self.folded: list[FoldedOnGrid] = []
        self.coarser = 0  # channels whose weights were made coarser so that their bias fits
        self.batch = self.apply("Shape", IMAGE, start=0, end=1)

    @property
    def graph(self) -> Graph:
        """What a report wants to know, see layer_report.Writer."""
        return self

    def value(self, array: np.ndarray | np.generic) -> str:
        return self.constant(f"constant_{len(self.constants)}", array)

    def numbers(self, *values: int) -> str:
        return self.value(np.array(values, np.int64))

    def apply(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        return self.node(operator, list(inputs), output or f"{operator}_{len(self.nodes)}", **attributes)

    def moved(self, operator: str, x: str, *inputs: str, **attributes: Any) -> str:
        """`x` with its numbers in other places, which stay on the grid that they are on."""
        output = self.apply(operator, x, *inputs, **attributes)
        if x in self.grids:
            self.grids[output] = self.grids[x]._replace(is_again=True)
        return output

    def point(self, x: str, name: str, is_second: bool = False) -> str:
        """Where the quantised network puts `x` on a grid; `x` itself in a graph of floats.

        `is_second` marks the second operand of a product, which integer kernels want as int8 with zero point 0.
        """
        if self.activations is None:
            return x
        scale, zero_point = self.activations[name]
        return self.on_signed_grid(x, name, scale) if is_second else self.on_grid(x, name, scale, zero_point)

    def weight_and_bias(self, x: str, name: str, weight: np.ndarray, bias: np.ndarray, axis: int) -> tuple[str, str]:
        """Tensors of a layer that reads `x`; weight (C_out, ...), whose output channels are stored on `axis`."""
        turned = weight if axis == 0 else weight.T
        if x not in self.grids:
            return self.value(turned), self.value(bias)
        folded = weights.per_channel(name, weight, bias, WEIGHTS)
        if not self.is_for_tensorrt:
            folded, changed = folded.with_room_for_bias(self.grids[x].scale)
            self.coarser += changed
        self.folded.append(folded)
        whole = folded.whole if axis == 0 else folded.whole.T
        stored = self.dequantised(f"{name}.weight", whole, folded.scale, np.zeros(len(folded.scale)), axis)
        return stored, self.bias(name, folded, self.grids[x])

    def layer_norm(self, x: str, name: str, epsilon: float) -> str:
        gamma, beta = (self.value(self.arrays[f"{name}.{part}"]) for part in ("gamma", "beta"))
        return self.apply("LayerNormalization", x, gamma, beta, axis=-1, epsilon=epsilon)

    def dense(self, x: str, name: str, weight: np.ndarray, bias: np.ndarray) -> str:
        """(N * L, C_in) -> (N * L, C_out); `weight` (C_out, C_in)."""
        return self.apply("Gemm", x, *self.weight_and_bias(x, name, weight, bias, axis=1))

    def layer(self, x: str, name: str) -> str:
        """A dense layer with the network's own weight, which may be that of a 1x1 convolution."""
        weight, bias = (self.arrays[f"{name}.{part}"] for part in ("weight", "bias"))
        return self.dense(x, name, weight.reshape(weight.shape[:2]), bias)

    def conv(self, x: str, name: str, stride: int, padding: int = 0, group: int = 1) -> str:
        weight, bias = (self.arrays[f"{name}.{part}"] for part in ("weight", "bias"))
        tensors = self.weight_and_bias(x, name, weight, bias, axis=0)
        kernel = list(weight.shape[2:])
        return self.apply(
            "Conv", x, *tensors, group=group, strides=[stride, stride], pads=[padding] * 4, kernel_shape=kernel
        )

    def to_tokens(self, feature: str, channels: int) -> str:
        """(N, C, h, w) -> (N * L, C)."""
        return self.moved("Reshape", self.moved("Transpose", feature, perm=[0, 2, 3, 1]), self.numbers(-1, channels))

    def to_map(self, tokens: str, size: str) -> str:
        """(N * L, C) -> (N, C, h, w); `size` is a tensor of h and w."""
        shape = self.apply("Concat", self.batch, size, self.numbers(-1), axis=0)
        return self.moved("Transpose", self.moved("Reshape", tokens, shape), perm=[0, 3, 1, 2])

    def size(self, feature: str) -> str:
        """Height and width of a map, as a tensor."""
        return self.apply("Shape", feature, start=2)

    def resize(self, x: str, size: str, output: str = "") -> str:
        """Bilinear with half-pixel centres."""
        shape = self.apply("Concat", self.apply("Shape", x, end=2), size, axis=0)
        return self.apply(
            "Resize", x, "", "", shape, output=output, mode="linear", coordinate_transformation_mode="half_pixel"
        )

    def resize_logits(self, x: str, source: tuple[int, int], target: tuple[int, int]) -> str:
        """`resize` as two products with constant matrices; OpenVINO's own operator also changes the memory's order."""
        wide = self.apply("MatMul", x, self.value(bilinear_weights(source[1], target[1]).T), output=WIDE)
        return self.apply("MatMul", self.value(bilinear_weights(source[0], target[0])), wide, output=LOGITS)

    def gelu(self, x: str) -> str:
        """Exact GELU: x times the normal distribution's share below x."""
        if self.activations is not None:
            return self.apply("Gelu", x)
        erf = self.apply("Erf", self.apply("Mul", x, self.value(np.sqrt(HALF))))
        share = self.apply("Add", self.apply("Mul", erf, self.value(HALF)), self.value(HALF))
        return self.apply("Mul", x, share)


def attention(graph: Graph, x: str, size: str, name: str, heads: int, reduction: int) -> str:
    """Tokens -> tokens; keys and values come from a map `reduction` times smaller."""
    channels = len(graph.arrays[f"{name}.q.bias"])
    split = graph.apply("Concat", graph.batch, graph.numbers(-1, heads, channels // heads), axis=0)
    scale = np.float32((channels // heads) ** -0.5)

    def headed(tokens: str, part: str, name_of: str, rows: slice, factor: np.float32 = ONE) -> str:
        """(N, L, heads, d) of a dense layer's `rows`, on the grid of `name_of`."""
        weight, bias = (graph.arrays[f"{name}.{part}.{leaf}"][rows] * factor for leaf in ("weight", "bias"))
        dense = graph.dense(tokens, f"{name}.{name_of}", weight, bias)
        found = graph.point(dense, f"{name}.{name_of}.output", is_second=name_of != "q")
        return graph.moved("Reshape", found, split)

    q = graph.moved("Transpose", headed(x, "q", "q", slice(None), scale), perm=[0, 2, 1, 3])  # (N, heads, L, d)
    if reduction > 1:
        reduced = graph.point(graph.conv(graph.to_map(x, size), f"{name}.sr", reduction), f"{name}.sr.output")
        normed = graph.layer_norm(graph.to_tokens(reduced, channels), f"{name}.norm", INNER_EPS)
        x = graph.point(normed, f"{name}.kv.input")  # (N * M, C)
    k = graph.moved("Transpose", headed(x, "kv", "k", slice(0, channels)), perm=[0, 2, 3, 1])  # (N, heads, d, M)
    v = graph.moved("Transpose", headed(x, "kv", "v", slice(channels, None)), perm=[0, 2, 1, 3])  # (N, heads, M, d)
    share = graph.point(graph.apply("Softmax", graph.apply("MatMul", q, k), axis=-1), f"{name}.softmax")
    mixed = graph.point(graph.apply("MatMul", share, v), f"{name}.proj.input")
    joined = graph.moved("Reshape", graph.moved("Transpose", mixed, perm=[0, 2, 1, 3]), graph.numbers(-1, channels))
    return graph.layer(joined, f"{name}.proj")


def feed_forward(graph: Graph, x: str, size: str, name: str) -> str:
    wide = len(graph.arrays[f"{name}.fc1.bias"])
    hidden = graph.to_map(graph.point(graph.layer(x, f"{name}.fc1"), f"{name}.fc1.output"), size)
    mixed = graph.conv(hidden, f"{name}.dwconv", 1, padding=1, group=wide)
    tokens = graph.to_tokens(graph.point(mixed, f"{name}.dwconv.output"), wide)
    return graph.layer(graph.point(graph.gelu(tokens), f"{name}.fc2.input"), f"{name}.fc2")


def encode(graph: Graph, image: str, backbone: str) -> list[tuple[str, str]]:
    """The maps of the four stages as tokens, and their sizes."""
    maps, x = [], graph.point(image, "backbone.image")
    rows = zip(VARIANTS[backbone].channels, PATCHES, VARIANTS[backbone].depths, HEADS, REDUCTIONS)
    for stage, (channels, (_, stride, padding), depth, heads, reduction) in enumerate(rows):
        name = f"backbone.stages.{stage}"
        patches = graph.point(
            graph.conv(x, f"{name}.patch_embed.proj", stride, padding), f"{name}.patch_embed.proj.output"
        )
        size = graph.size(patches)
        tokens = graph.layer_norm(graph.to_tokens(patches, channels), f"{name}.patch_embed.norm", INNER_EPS)
        for block in (f"{name}.blocks.{index}" for index in range(depth)):
            x = graph.point(graph.layer_norm(tokens, f"{block}.norm1", BLOCK_EPS), f"{block}.attn.input")
            tokens = graph.apply("Add", tokens, attention(graph, x, size, f"{block}.attn", heads, reduction))
            x = graph.point(graph.layer_norm(tokens, f"{block}.norm2", BLOCK_EPS), f"{block}.mlp.input")
            tokens = graph.apply("Add", tokens, feed_forward(graph, x, size, f"{block}.mlp"))
        tokens = graph.point(graph.layer_norm(tokens, f"{name}.norm", BLOCK_EPS), f"{name}.output")
        maps.append((tokens, size))
        x = graph.to_map(tokens, size)
    return maps


def decode(graph: Graph, maps: list[tuple[str, str]]) -> str:
    """The maps of the four stages -> logits at a quarter of the image's size."""
    start = len("decode_head.")
    arrays = {name[start:]: array for name, array in graph.arrays.items() if name.startswith("decode_head.")}
    scale = arrays["bn.gamma"] / np.sqrt(arrays["bn.moving_variance"] + BN_EPS)  # (E,)
    bias = arrays["bn.beta"] - arrays["bn.moving_mean"] * scale
    fused = []
    for index in range(len(maps)):
        start = (len(maps) - 1 - index) * len(scale)
        fuse = scale[:, None] * arrays["linear_fuse.weight"][:, start : start + len(scale)]  # (E, E)
        fused.append(fuse @ arrays[f"linear_c.{index}.weight"])
        bias = bias + fuse @ arrays[f"linear_c.{index}.bias"]  # resizing leaves constants as they are
    size, total = maps[0][1], ""
    for index, (tokens, own_size) in enumerate(maps):
        part = bias if index == 0 else np.zeros_like(bias)
        x = graph.to_map(graph.dense(tokens, f"decode_head.linear_c.{index}", fused[index], part), own_size)
        total = graph.apply("Add", total, graph.resize(x, size)) if total else x
    relu = graph.point(graph.apply("Relu", total), "decode_head.linear_pred.input")
    return graph.to_map(graph.layer(graph.to_tokens(relu, len(scale)), "decode_head.linear_pred"), size)


def model(graph: Graph, backbone: str, metadata: dict, sides: tuple[int | str, ...] = FREE) -> onnx.ModelProto:
    """The checked model: `image` (N, 3, H, W) -> `logits` (N, K, H, W); `sides` are N, H and W, symbols where free.

    `graph` is empty and holds network.py's parameters by name.
    """
    batch, height, width = sides
    logits = decode(graph, encode(graph, IMAGE, backbone))
    if isinstance(height, int) and isinstance(width, int):
        graph.resize_logits(logits, (-(-height // 4), -(-width // 4)), (height, width))
    else:
        graph.resize(logits, graph.size(IMAGE), output=LOGITS)
    classes = len(graph.arrays["decode_head.linear_pred.bias"])
    opset = OPSET if graph.activations is None else INTEGER_OPSET
    return graph.checked(
        "segformer", [batch, 3, height, width], (LOGITS, [batch, classes, height, width]), metadata, opset
    )
