"""The quantised SegFormer: the network of src.segformer.network with overrides, and nothing else.

Every convolution and dense layer quantises its weight, per output channel, and every tensor that an integer kernel
reads is put on a grid; so are the results of convolutions, because onnxruntime's integer convolution writes no floats.
Attention's two products read grids too. Layer normalisation, softmax, GELU, resizing and the residual sums are computed
in floats. Shapes and names of parameters are those of the float network; quantisers add a range each.

The decode head is quantised as it is deployed: its two matrices multiplied with each other and with the batch
normalisation behind them. So that normalisation keeps its moving statistics in training.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mindspore import Tensor, float32, nn, ops

from src.cpu_kernels import rewrite
from src.quantisation.bias_correction import Corrected
from src.quantisation.grid import Grid
from src.quantisation.quantiser import ActivationQuantiser, WeightQuantiser, fold_factor
from src.segformer.network import (
    Attention,
    Head,
    MixFeedForward,
    PatchEmbed,
    SegFormer,
    Stage,
    resize,
    to_map,
    to_tokens,
)

WEIGHTS = Grid(8, symmetric=True, narrow=True)
UNSIGNED, SIGNED = Grid(8), Grid(8, symmetric=True)


class Quantisers:
    """Makes the quantisers of one network."""

    def __init__(self, range_decay: float, library: Path | None, symmetric: bool):
        self.decay, self.library, self.symmetric = range_decay, library, symmetric

    def activation(self, name: str, grid: Grid = UNSIGNED) -> ActivationQuantiser:
        return ActivationQuantiser(name, SIGNED if self.symmetric else grid, self.decay, self.library)

    def weight(self, layer: str) -> WeightQuantiser:
        return WeightQuantiser(f"{layer}.weight", WEIGHTS, True, self.library)


class QuantLayer(Corrected):
    """A weight (C_out, ...), quantised, and its bias (C_out,): those of `layer`, a dense layer or a convolution."""

    def __init__(self, name: str, layer: nn.Cell, quantisers: Quantisers):
        super().__init__(layer.bias.shape[0])
        self.weight, self.bias = layer.weight, layer.bias
        self.quantiser, self.quantising = quantisers.weight(name), True

    def on_grid(self) -> Tensor:
        if not self.quantising:
            return self.weight
        return self.quantiser(self.weight)

    def move(self, shift: Tensor) -> None:
        ops.assign(self.bias, self.bias - shift)


class QuantDense(QuantLayer):
    """(N, L, C_in) -> (N, L, C_out), also with the weight of a 1x1 convolution."""

    def construct(self, x: Tensor) -> Tensor:
        result = self.times(x, self.on_grid())
        return self.compared(self.times(x, self.weight), result, (0, 1)) if self.correcting else result

    def times(self, x: Tensor, weight: Tensor) -> Tensor:
        return ops.matmul(x, weight.reshape(weight.shape[0], weight.shape[1]).T) + self.bias


class QuantConv(QuantLayer):
    """(N, C_in, H, W) -> (N, C_out, h, w)."""

    def __init__(self, name: str, conv: nn.Conv2d, quantisers: Quantisers):
        super().__init__(name, conv, quantisers)
        self.convolve = conv.conv2d

    def construct(self, x: Tensor) -> Tensor:
        result, bias = self.convolve(x, self.on_grid()), self.bias.reshape(1, -1, 1, 1)
        if self.correcting:
            result = self.compared(self.convolve(x, self.weight), result, (0, 2, 3))
        return result + bias


class QuantPatchEmbed(nn.Cell):
    """network.PatchEmbed whose input is on a grid already."""

    def __init__(self, name: str, embed: PatchEmbed, quantisers: Quantisers):
        super().__init__(auto_prefix=False)
        self.proj = QuantConv(f"{name}.proj", embed.proj, quantisers)
        self.output = quantisers.activation(f"{name}.proj.output")
        self.norm = embed.norm

    def construct(self, x: Tensor) -> tuple[Tensor, int, int]:
        x = self.output(self.proj(x))
        return self.norm(to_tokens(x)), x.shape[2], x.shape[3]


class QuantAttention(nn.Cell):
    """network.Attention; keys and values have a signed grid, as a product's second tensor has in integer kernels."""

    def __init__(self, name: str, attention: Attention, quantisers: Quantisers):
        super().__init__(auto_prefix=False)
        self.heads, self.scale, self.reduction = attention.heads, attention.scale, attention.reduction
        self.input = quantisers.activation(f"{name}.input")
        self.q = QuantDense(f"{name}.q", attention.q, quantisers)
        self.q_output = quantisers.activation(f"{name}.q.output")
        if self.reduction > 1:
            self.sr = QuantConv(f"{name}.sr", attention.sr, quantisers)
            self.sr_output = quantisers.activation(f"{name}.sr.output")
            self.norm = attention.norm
            self.kv_input = quantisers.activation(f"{name}.kv.input")
        self.kv = QuantDense(f"{name}.kv", attention.kv, quantisers)
        self.k_output = quantisers.activation(f"{name}.k.output", SIGNED)
        self.v_output = quantisers.activation(f"{name}.v.output", SIGNED)
        self.softmax = quantisers.activation(f"{name}.softmax")
        self.mixed = quantisers.activation(f"{name}.proj.input")
        self.proj = QuantDense(f"{name}.proj", attention.proj, quantisers)

    def construct(self, x: Tensor, height: int, width: int) -> Tensor:
        n, length, channels = x.shape
        x = self.input(x)
        q = self.q_output(self.q(x) * self.scale).reshape(n, length, self.heads, -1).transpose(0, 2, 1, 3)
        if self.reduction > 1:
            x = self.kv_input(self.norm(to_tokens(self.sr_output(self.sr(to_map(x, height, width))))))
        kv = self.kv(x)
        k = self.k_output(kv[:, :, :channels]).reshape(n, kv.shape[1], self.heads, -1).transpose(0, 2, 3, 1)
        v = self.v_output(kv[:, :, channels:]).reshape(n, kv.shape[1], self.heads, -1).transpose(0, 2, 1, 3)
        share = self.softmax(ops.softmax(ops.matmul(q, k), -1))
        mixed = self.mixed(ops.matmul(share, v))
        return self.proj(mixed.transpose(0, 2, 1, 3).reshape(n, length, channels))


class QuantFeedForward(nn.Cell):
    """network.MixFeedForward, tokens -> tokens."""

    def __init__(self, name: str, mlp: MixFeedForward, quantisers: Quantisers):
        super().__init__(auto_prefix=False)
        self.input = quantisers.activation(f"{name}.input")
        self.fc1 = QuantDense(f"{name}.fc1", mlp.fc1, quantisers)
        self.fc1_output = quantisers.activation(f"{name}.fc1.output")
        self.dwconv = QuantConv(f"{name}.dwconv", mlp.dwconv, quantisers)
        self.dwconv_output = quantisers.activation(f"{name}.dwconv.output")
        self.act = mlp.act
        self.fc2_input = quantisers.activation(f"{name}.fc2.input")
        self.fc2 = QuantDense(f"{name}.fc2", mlp.fc2, quantisers)

    def construct(self, x: Tensor, height: int, width: int) -> Tensor:
        hidden = to_map(self.fc1_output(self.fc1(self.input(x))), height, width)
        hidden = self.act(self.dwconv_output(self.dwconv(hidden)))
        return self.fc2(self.fc2_input(to_tokens(hidden)))


class QuantStage(nn.Cell):
    """network.Stage whose result, which the next stage and the decode head read, is on a grid."""

    def __init__(self, name: str, stage: Stage, quantisers: Quantisers):
        super().__init__(auto_prefix=False)
        self.patch_embed = QuantPatchEmbed(f"{name}.patch_embed", stage.patch_embed, quantisers)
        self.blocks = stage.blocks
        for index, block in enumerate(stage.blocks):
            attention = QuantAttention(f"{name}.blocks.{index}.attn", block.attn, quantisers)
            rewrite.replace_child(block, "attn", attention)
            rewrite.replace_child(block, "mlp", QuantFeedForward(f"{name}.blocks.{index}.mlp", block.mlp, quantisers))
        self.norm = stage.norm
        self.output = quantisers.activation(f"{name}.output")

    def construct(self, x: Tensor, keep: Tensor = None) -> Tensor:
        tokens, height, width = self.patch_embed(x)
        for index, block in enumerate(self.blocks):
            tokens = block(tokens, height, width, None if keep is None else keep[index])
        return to_map(self.output(self.norm(tokens)), height, width)


class QuantFirstStage(nn.Cell):
    """The first stage with the image, (N, 3, H, W), on a grid."""

    def __init__(self, stage: QuantStage, image: ActivationQuantiser):
        super().__init__(auto_prefix=False)
        self.image, self.stage = image, stage

    def construct(self, x: Tensor, keep: Tensor = None) -> Tensor:
        return self.stage(self.image(x), keep)


class QuantHead(Corrected):
    """network.Head with each stage's matrices as one weight, batch normalisation folded in."""

    def __init__(self, name: str, head: Head, quantisers: Quantisers):
        super().__init__(head.width)
        self.linear_c, self.linear_fuse, self.bn, self.width = head.linear_c, head.linear_fuse, head.bn, head.width
        self.quantisers = nn.CellList(
            [quantisers.weight(f"{name}.linear_c.{index}") for index in range(len(head.linear_c))], auto_prefix=False
        )
        self.fused = quantisers.activation(f"{name}.linear_pred.input")
        self.linear_pred = QuantDense(f"{name}.linear_pred", head.linear_pred, quantisers)
        self.quantising = True

    def construct(self, maps: tuple, keep: Tensor = None) -> Tensor:
        height, width = maps[0].shape[2:]
        factor = fold_factor(self.bn.gamma, self.bn.moving_variance).reshape(-1, 1)  # (E, 1)
        total, bias = 0.0, self.bn.beta - self.bn.moving_mean * factor.reshape(-1)
        for index, dense in enumerate(self.linear_c):
            start = (len(self.linear_c) - 1 - index) * self.width
            fuse = factor * self.linear_fuse.weight[:, start : start + self.width]  # (E, E)
            weight = ops.matmul(fuse, dense.weight)
            rounded = self.quantisers[index](weight) if self.quantising else weight
            x = ops.conv2d(maps[index], rounded.reshape(self.width, -1, 1, 1))
            if self.correcting:
                x = self.compared(ops.conv2d(maps[index], weight.reshape(self.width, -1, 1, 1)), x, (0, 2, 3))
            total = total + resize(x, height, width)  # (N, E, H / 4, W / 4)
            bias = bias + ops.matmul(fuse, dense.bias)
        x = self.fused(ops.relu(total + bias.reshape(1, -1, 1, 1)))
        if keep is not None:
            x = x * keep.reshape(keep.shape[0], keep.shape[1], 1, 1)
        return to_map(self.linear_pred(to_tokens(x)), height, width).astype(float32)

    def move(self, shift: Tensor) -> None:
        ops.assign(self.bn.beta, self.bn.beta - shift)


def quantise(net: SegFormer, range_decay: float, library: Path | None, symmetric: bool = False) -> SegFormer:
    """Put the quantised cells into a float network in place; training, evaluation and export all do.

    `library` holds the CPU kernels, for networks that are not exported; `symmetric` gives all activations zero point 0.
    """
    quantisers = Quantisers(range_decay, library, symmetric)
    image = quantisers.activation("backbone.image")
    stages = net.backbone.stages
    for name, stage in list(stages.name_cells().items()):
        quantised = QuantStage(f"backbone.stages.{name}", stage, quantisers)
        rewrite.replace_child(stages, name, QuantFirstStage(quantised, image) if name == "0" else quantised)
    rewrite.replace_child(net, "decode_head", QuantHead("decode_head", net.decode_head, quantisers))
    return net


def activation_quantisers(net: SegFormer) -> Iterator[ActivationQuantiser]:
    return (cell for _, cell in net.cells_and_names() if isinstance(cell, ActivationQuantiser))


def layers(net: SegFormer) -> Iterator[Corrected]:
    """Everything that has a weight on a grid."""
    return (cell for _, cell in net.cells_and_names() if isinstance(cell, (QuantLayer, QuantHead)))


def set_calibrating(net: SegFormer, calibrating: bool) -> None:
    """Whether extremes are summed up and nothing is quantised. For graphs that are compiled afterwards."""
    for cell in activation_quantisers(net):
        cell.summing = calibrating
    for layer in layers(net):
        layer.quantising = not calibrating
