"""SegFormer as an ONNX graph for images of any size and number, written node by node.

MindSpore's exporter writes the sizes of one image into the graph; this graph reads them from the image. The network is
that of network.py, with its parameter names; batch normalisation and the head's two matrices are multiplied in advance.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from src.engine.export import onnx_model
from src.segformer.network import BLOCK_EPS, BN_EPS, INNER_EPS, PATCHES
from src.segformer.variants import HEADS, REDUCTIONS, VARIANTS

OPSET, IR_VERSION = 17, 8  # the first with LayerNormalization
IMAGE, LOGITS = "image", "logits"
HALF, ONE = np.float32(0.5), np.float32(1)
FREE = ("batch", "height", "width")


class Graph:
    """A growing graph; every method returns the name of the tensor that it adds."""

    def __init__(self, weights: dict[str, np.ndarray]):
        self.weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, array: np.ndarray | np.generic) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(array, order="C"), name))
        return name

    def numbers(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def node(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        output = output or f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def add(self, x: str, array: np.ndarray | np.generic) -> str:
        return self.node("Add", x, self.constant(array))

    def times(self, x: str, array: np.ndarray | np.generic) -> str:
        return self.node("Mul", x, self.constant(array))

    def layer_norm(self, x: str, name: str, epsilon: float) -> str:
        gamma, beta = (self.constant(self.weights[f"{name}.{part}"]) for part in ("gamma", "beta"))
        return self.node("LayerNormalization", x, gamma, beta, axis=-1, epsilon=epsilon)

    def dense(self, x: str, weight: np.ndarray, bias: np.ndarray) -> str:
        """(N, L, C_in) -> (N, L, C_out); `weight` (C_out, C_in)."""
        return self.add(self.node("MatMul", x, self.constant(weight.T)), bias)

    def conv(self, x: str, name: str, stride: int = 1, padding: int = 0, group: int = 1) -> str:
        weight, bias = (self.constant(self.weights[f"{name}.{part}"]) for part in ("weight", "bias"))
        pads = [padding] * 4
        return self.node("Conv", x, weight, bias, strides=[stride, stride], pads=pads, group=group)

    def to_tokens(self, feature: str) -> str:
        """(N, C, h, w) -> (N, L, C)."""
        return self.node("Transpose", self.node("Reshape", feature, self.numbers(0, 0, -1)), perm=[0, 2, 1])

    def to_map(self, tokens: str, size: str) -> str:
        """(N, L, C) -> (N, C, h, w); `size` is a tensor of h and w."""
        shape = self.node("Concat", self.numbers(0, 0), size, axis=0)
        return self.node("Reshape", self.node("Transpose", tokens, perm=[0, 2, 1]), shape)

    def size(self, feature: str) -> str:
        """Height and width of a map, as a tensor."""
        return self.node("Shape", feature, start=2)

    def resize(self, x: str, size: str, output: str = "") -> str:
        """Bilinear with half-pixel centres."""
        shape = self.node("Concat", self.node("Shape", x, end=2), size, axis=0)
        return self.node(
            "Resize", x, "", "", shape, output=output, mode="linear", coordinate_transformation_mode="half_pixel"
        )

    def gelu(self, x: str) -> str:
        """Exact GELU: x times the normal distribution's share below x."""
        share = self.add(self.times(self.node("Erf", self.times(x, np.sqrt(HALF))), HALF), HALF)
        return self.node("Mul", x, share)


def attention(graph: Graph, x: str, size: str, name: str, heads: int, reduction: int) -> str:
    """Tokens -> tokens; keys and values come from a map `reduction` times smaller."""
    weights = {key[len(name) + 1 :]: array for key, array in graph.weights.items() if key.startswith(f"{name}.")}
    channels = len(weights["q.bias"])
    split = graph.numbers(0, 0, heads, channels // heads)
    scale = np.float32((channels // heads) ** -0.5)

    def headed(tokens: str, rows: slice, part: str, order: list[int], factor: np.float32 = ONE) -> str:
        found = graph.dense(tokens, weights[f"{part}.weight"][rows] * factor, weights[f"{part}.bias"][rows] * factor)
        return graph.node("Transpose", graph.node("Reshape", found, split), perm=order)

    q = headed(x, slice(None), "q", [0, 2, 1, 3], scale)  # (N, heads, L, d)
    if reduction > 1:
        x = graph.to_tokens(graph.conv(graph.to_map(x, size), f"{name}.sr", reduction))
        x = graph.layer_norm(x, f"{name}.norm", INNER_EPS)  # (N, M, C)
    k = headed(x, slice(0, channels), "kv", [0, 2, 3, 1])  # (N, heads, d, M)
    v = headed(x, slice(channels, None), "kv", [0, 2, 1, 3])  # (N, heads, M, d)
    mixed = graph.node("MatMul", graph.node("Softmax", graph.node("MatMul", q, k), axis=-1), v)
    joined = graph.node("Reshape", graph.node("Transpose", mixed, perm=[0, 2, 1, 3]), graph.numbers(0, 0, channels))
    return graph.dense(joined, weights["proj.weight"], weights["proj.bias"])


def feed_forward(graph: Graph, x: str, size: str, name: str) -> str:
    hidden = graph.conv(graph.to_map(x, size), f"{name}.fc1")
    group = len(graph.weights[f"{name}.fc1.bias"])
    hidden = graph.gelu(graph.conv(hidden, f"{name}.dwconv", padding=1, group=group))
    return graph.to_tokens(graph.conv(hidden, f"{name}.fc2"))


def encode(graph: Graph, image: str, backbone: str) -> list[str]:
    """The maps of the four stages."""
    maps, x = [], image
    rows = zip(PATCHES, VARIANTS[backbone].depths, HEADS, REDUCTIONS)
    for stage, ((_, stride, padding), depth, heads, reduction) in enumerate(rows):
        name = f"backbone.stages.{stage}"
        patches = graph.conv(x, f"{name}.patch_embed.proj", stride, padding)
        size = graph.size(patches)
        tokens = graph.layer_norm(graph.to_tokens(patches), f"{name}.patch_embed.norm", INNER_EPS)
        for block in (f"{name}.blocks.{index}" for index in range(depth)):
            x = graph.layer_norm(tokens, f"{block}.norm1", BLOCK_EPS)
            tokens = graph.node("Add", tokens, attention(graph, x, size, f"{block}.attn", heads, reduction))
            x = graph.layer_norm(tokens, f"{block}.norm2", BLOCK_EPS)
            tokens = graph.node("Add", tokens, feed_forward(graph, x, size, f"{block}.mlp"))
        x = graph.to_map(graph.layer_norm(tokens, f"{name}.norm", BLOCK_EPS), size)
        maps.append(x)
    return maps


def decode(graph: Graph, maps: list[str]) -> str:
    """The maps of the four stages -> logits at a quarter of the image's size."""
    start = len("decode_head.")
    weights = {name[start:]: array for name, array in graph.weights.items() if name.startswith("decode_head.")}
    scale = weights["bn.gamma"] / np.sqrt(weights["bn.moving_variance"] + BN_EPS)  # (E,)
    bias = weights["bn.beta"] - weights["bn.moving_mean"] * scale
    size, total = graph.size(maps[0]), ""
    for index, feature in enumerate(maps):
        start = (len(maps) - 1 - index) * len(scale)
        fuse = scale[:, None] * weights["linear_fuse.weight"][:, start : start + len(scale)]  # (E, E)
        matrix = fuse @ weights[f"linear_c.{index}.weight"]
        bias = bias + fuse @ weights[f"linear_c.{index}.bias"]
        x = graph.node("Conv", feature, graph.constant(matrix[:, :, None, None]))
        x = x if index == 0 else graph.resize(x, size)
        total = graph.node("Add", total, x) if total else x
    fused = graph.node("Relu", graph.add(total, bias[None, :, None, None]))
    return graph.conv(fused, "decode_head.linear_pred")


def model(weights: dict[str, np.ndarray], backbone: str, metadata: dict) -> onnx.ModelProto:
    """The checked model: `image` (N, 3, H, W) -> `logits` (N, K, H, W). `weights` are network.py's, by name."""
    graph = Graph(weights)
    maps = encode(graph, IMAGE, backbone)
    graph.resize(decode(graph, maps), graph.size(IMAGE), output=LOGITS)
    batch, height, width = FREE
    classes = len(weights["decode_head.linear_pred.bias"])
    made = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "segformer",
            [helper.make_tensor_value_info(IMAGE, TensorProto.FLOAT, [batch, 3, height, width])],
            [helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, [batch, classes, height, width])],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    made.ir_version = IR_VERSION
    onnx_model.store_metadata(made, metadata)
    onnx.checker.check_model(made, full_check=True)
    return made
