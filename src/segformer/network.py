"""SegFormer (https://arxiv.org/abs/2105.15203): Mix Transformer encoder, all-MLP head, network, in reading order.

Shapes: N images, H x W pixels, h x w the size of a stage's map, L = h * w its tokens, C its channels, E the channels of
the decode head, K classes. The stages work at 1/4, 1/8, 1/16 and 1/32 of the input, rounded up.
"""

import math
from typing import NamedTuple

import numpy as np
from mindspore import Parameter, Tensor, float32, nn, ops

from src.segformer.variants import HEADS, MLP_RATIO, REDUCTIONS, VARIANTS, decoder_width

BLOCK_EPS = 1e-6  # layer normalisation in front of attention and feed-forward, and at the end of a stage
INNER_EPS = 1e-5  # ... after a patch embedding and after the reduction of keys and values
BN_EPS = 1e-5
BN_MOMENTUM = 0.9  # share of the old moving average that is kept; PyTorch writes the same thing as 0.1
PATCHES = ((7, 4, 3), (3, 2, 1), (3, 2, 1), (3, 2, 1))  # kernel, stride, padding of each stage's patch embedding


def to_map(tokens: Tensor, height: int, width: int) -> Tensor:
    """(N, L, C) -> (N, C, h, w)."""
    return tokens.transpose(0, 2, 1).reshape(tokens.shape[0], tokens.shape[2], height, width)


def to_tokens(feature: Tensor) -> Tensor:
    """(N, C, h, w) -> (N, L, C)."""
    return feature.reshape(feature.shape[0], feature.shape[1], -1).transpose(0, 2, 1)


def dropped(branch: Tensor, keep: Tensor) -> Tensor:
    """Stochastic depth: (N, L, C) times one number per image, `keep` (N,); None keeps everything."""
    return branch if keep is None else branch * keep.reshape(-1, 1, 1)


def bilinear_weights(source: int, target: int) -> np.ndarray:
    """(target, source) float32: each output row averages the two input rows that are nearest to its centre."""
    centre = np.maximum((np.arange(target) + 0.5) * source / target - 0.5, 0.0)
    low = np.minimum(centre.astype(np.int64), source - 1)
    high = np.minimum(low + 1, source - 1)
    share = centre - low
    matrix = np.zeros((target, source))
    np.add.at(matrix, (np.arange(target), low), 1.0 - share)
    np.add.at(matrix, (np.arange(target), high), share)
    return matrix.astype(np.float32)


@ops.constexpr
def bilinear_matrix(source: int, target: int) -> Tensor:
    """`bilinear_weights` for a graph."""
    return Tensor(bilinear_weights(source, target))


def resize(x: Tensor, height: int, width: int) -> Tensor:
    """(N, C, h, w) -> (N, C, height, width), bilinear with half-pixel centres (PyTorch's align_corners=False).

    Two products with constant matrices instead of MindSpore's own operator, which has no ONNX export.
    """
    if x.shape[3] != width:
        x = ops.matmul(x, bilinear_matrix(x.shape[3], width).T.astype(x.dtype))
    if x.shape[2] != height:
        x = ops.matmul(bilinear_matrix(x.shape[2], height).astype(x.dtype), x)
    return x


class Gelu(nn.Cell):
    """Exact GELU, x times the normal distribution's share below x, any shape; computed in float32.

    `erf` is the operator that computes the error function.
    """

    def __init__(self, erf: nn.Cell):
        super().__init__()
        self.erf = erf

    def share(self, x: Tensor) -> Tensor:
        return self.erf(x * (0.5**0.5)) * 0.5 + 0.5

    def construct(self, x: Tensor) -> Tensor:
        wide = x.astype(float32)
        return (wide * self.share(wide)).astype(x.dtype)

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """The same as the derivative that MindSpore finds, in half its operators."""
        wide = x.astype(float32)
        density = ops.exp(wide * wide * -0.5) * (0.5 / math.pi) ** 0.5
        return ((dout.astype(float32) * (self.share(wide) + wide * density)).astype(x.dtype),)


def linear(in_channels: int, out_channels: int) -> nn.Conv2d:
    """A dense layer on the channels of a map, (N, C_in, h, w) -> (N, C_out, h, w)."""
    return nn.Conv2d(in_channels, out_channels, 1, has_bias=True)


class PatchEmbed(nn.Cell):
    """(N, C_in, H, W) -> tokens (N, L, C) of overlapping patches, with the map's height and width."""

    def __init__(self, in_channels: int, channels: int, kernel: int, stride: int, padding: int):
        super().__init__()
        self.proj = nn.Conv2d(in_channels, channels, kernel, stride, "pad", padding, has_bias=True)
        self.norm = nn.LayerNorm((channels,), epsilon=INNER_EPS)

    def construct(self, x: Tensor) -> tuple[Tensor, int, int]:
        x = self.proj(x)
        return self.norm(to_tokens(x)), x.shape[2], x.shape[3]


class Attention(nn.Cell):
    """Self-attention whose keys and values come from a map `reduction` times smaller in height and width."""

    def __init__(self, channels: int, heads: int, reduction: int):
        super().__init__()
        self.heads = heads
        self.scale = (channels // heads) ** -0.5
        self.reduction = reduction
        self.q = nn.Dense(channels, channels)
        self.kv = nn.Dense(channels, 2 * channels)
        self.proj = nn.Dense(channels, channels)
        if reduction > 1:  # rows and columns that do not fill a patch are left out
            self.sr = nn.Conv2d(channels, channels, reduction, reduction, "valid", has_bias=True)
            self.norm = nn.LayerNorm((channels,), epsilon=INNER_EPS)

    def construct(self, x: Tensor, height: int, width: int) -> Tensor:
        n, length, channels = x.shape
        q = (self.q(x) * self.scale).reshape(n, length, self.heads, -1).transpose(0, 2, 1, 3)  # (N, heads, L, d)
        if self.reduction > 1:
            x = self.norm(to_tokens(self.sr(to_map(x, height, width))))  # (N, M, C), M = L / reduction ** 2
        kv = self.kv(x).reshape(n, x.shape[1], 2, self.heads, -1)
        k = kv[:, :, 0].transpose(0, 2, 3, 1)  # (N, heads, d, M)
        v = kv[:, :, 1].transpose(0, 2, 1, 3)  # (N, heads, M, d)
        weight = ops.softmax(ops.matmul(q, k).astype(float32), -1).astype(v.dtype)  # (N, heads, L, M)
        return self.proj(ops.matmul(weight, v).transpose(0, 2, 1, 3).reshape(n, length, channels))


class MixFeedForward(nn.Cell):
    """Expand, mix neighbouring positions with a 3x3 convolution per channel, GELU, project: tokens -> tokens.

    It works on maps, so that the wide hidden layer is never transposed; the dense layers are 1x1 convolutions.
    """

    def __init__(self, channels: int, erf: nn.Cell):
        super().__init__()
        hidden = channels * MLP_RATIO
        self.fc1 = linear(channels, hidden)
        self.dwconv = nn.Conv2d(hidden, hidden, 3, 1, "pad", 1, group=hidden, has_bias=True)
        self.act = Gelu(erf)
        self.fc2 = linear(hidden, channels)

    def construct(self, x: Tensor, height: int, width: int) -> Tensor:
        hidden = self.act(self.dwconv(self.fc1(to_map(x, height, width))))  # (N, 4 C, h, w)
        return to_tokens(self.fc2(hidden))


class Block(nn.Cell):
    """x + attention(x), then x + feed-forward(x), each on normalised tokens; `keep` (2, N) is stochastic depth's."""

    def __init__(self, channels: int, heads: int, reduction: int, erf: nn.Cell):
        super().__init__()
        self.norm1 = nn.LayerNorm((channels,), epsilon=BLOCK_EPS)
        self.attn = Attention(channels, heads, reduction)
        self.norm2 = nn.LayerNorm((channels,), epsilon=BLOCK_EPS)
        self.mlp = MixFeedForward(channels, erf)

    def construct(self, x: Tensor, height: int, width: int, keep: Tensor = None) -> Tensor:
        keep_attention, keep_mlp = (None, None) if keep is None else (keep[0], keep[1])
        x = x + dropped(self.attn(self.norm1(x), height, width), keep_attention)
        return x + dropped(self.mlp(self.norm2(x), height, width), keep_mlp)


class StageSizes(NamedTuple):
    """What differs between the stages; `patch` is kernel, stride and padding of the patch embedding."""

    in_channels: int
    channels: int
    patch: tuple[int, int, int]
    depth: int
    heads: int
    reduction: int


class Stage(nn.Cell):
    """(N, C_in, H, W) -> (N, C, h, w): patch embedding, `depth` blocks, layer normalisation."""

    def __init__(self, sizes: StageSizes, erf: nn.Cell):
        super().__init__()
        channels = sizes.channels
        self.patch_embed = PatchEmbed(sizes.in_channels, channels, *sizes.patch)
        self.blocks = nn.CellList([Block(channels, sizes.heads, sizes.reduction, erf) for _ in range(sizes.depth)])
        self.norm = nn.LayerNorm((channels,), epsilon=BLOCK_EPS)

    def construct(self, x: Tensor, keep: Tensor = None) -> Tensor:
        tokens, height, width = self.patch_embed(x)
        for index, block in enumerate(self.blocks):
            tokens = block(tokens, height, width, None if keep is None else keep[index])
        return to_map(self.norm(tokens), height, width)


class Backbone(nn.Cell):
    """Image (N, 3, H, W) -> the maps of the four stages, (N, C_i, H / 4, W / 4) to (N, C_i, H / 32, W / 32)."""

    def __init__(self, backbone: str, erf: nn.Cell):
        super().__init__()
        variant = VARIANTS[backbone]
        inputs = (3, *variant.channels[:3])
        rows = zip(inputs, variant.channels, PATCHES, variant.depths, HEADS, REDUCTIONS)
        self.stages = nn.CellList([Stage(StageSizes(*row), erf) for row in rows])
        self.starts = tuple(sum(variant.depths[:index]) for index in range(5))  # number of each stage's first block

    def construct(self, image: Tensor, keep: Tensor = None) -> tuple:
        maps, x = (), image  # type: tuple, Tensor  # as a comment: graph mode compiles no annotation
        for index, stage in enumerate(self.stages):
            x = stage(x, None if keep is None else keep[self.starts[index] : self.starts[index + 1]])
            maps = (*maps, x)
        return maps


class Head(nn.Cell):
    """The maps of the four stages -> logits (N, K, H / 4, W / 4), float32 in mixed precision too.

    The paper takes each map to E channels (linear_c), resizes all to 1/4, and fuses the 4 E channels with a 1x1
    convolution (linear_fuse). All of that is linear, so its order is free: here the matrices of each stage are
    multiplied with each other first and the map is resized last. Same parameters and function, a tenth of the work.
    """

    def __init__(self, channels: tuple, width: int, num_classes: int, norm: type = nn.BatchNorm2d):
        super().__init__()
        self.linear_c = nn.CellList([nn.Dense(stage_channels, width) for stage_channels in channels])
        self.linear_fuse = nn.Dense(len(channels) * width, width, has_bias=False)  # inputs: stage 4 first
        self.bn = norm(width, eps=BN_EPS, momentum=BN_MOMENTUM)
        self.linear_pred = linear(width, num_classes)
        self.width = width

    def construct(self, maps: tuple, keep: Tensor = None) -> Tensor:
        height, width = maps[0].shape[2:]
        total, bias = 0.0, 0.0  # type: Tensor, Tensor  # from the first stage on
        for index, dense in enumerate(self.linear_c):
            n, channels, h, w = maps[index].shape
            start = (len(self.linear_c) - 1 - index) * self.width
            fuse = self.linear_fuse.weight[:, start : start + self.width]  # (E, E)
            weight = ops.matmul(fuse, dense.weight).reshape(self.width, channels, 1, 1)
            x = ops.conv2d(maps[index], weight.astype(maps[index].dtype))
            total = total + resize(x, height, width)  # (N, E, H / 4, W / 4)
            bias = bias + ops.matmul(fuse, dense.bias)  # (E,); resizing leaves constants as they are
        x = ops.relu(self.bn(total + bias.reshape(1, -1, 1, 1)))  # the ONNX exporter gets bias_add wrong
        if keep is not None:
            x = x * keep.reshape(keep.shape[0], keep.shape[1], 1, 1)
        return self.linear_pred(x).astype(float32)


class SegFormer(nn.Cell):
    """The whole network: image (N, 3, H, W) -> logits (N, K, H, W).

    `keep_path` (blocks, 2, N) and `keep_channel` (N, E) are the masks of stochastic depth and of the head's dropout,
    already divided by the share that is kept. They are arguments because they belong to the data order: a resumed run
    draws the masks it would have drawn. `decoder_dim` 0 stands for the channels of the last stage. `erf` computes the
    error function of GELU.
    """

    def __init__(
        self,
        backbone: str,
        num_classes: int,
        decoder_dim: int = 0,
        norm: type = nn.BatchNorm2d,
        erf: nn.Cell = None,
    ):
        super().__init__()
        self.backbone = Backbone(backbone, ops.Erf() if erf is None else erf)
        width = decoder_width(backbone, decoder_dim)
        self.decode_head = Head(VARIANTS[backbone].channels, width, num_classes, norm)

    def construct(self, image: Tensor, keep_path: Tensor = None, keep_channel: Tensor = None) -> Tensor:
        logits = self.decode_head(self.backbone(image, keep_path), keep_channel)
        return resize(logits, image.shape[2], image.shape[3])


class QuarterLogits(nn.Cell):
    """The network without its last step: image (N, 3, H, W) -> logits (N, K, H / 4, W / 4), float32."""

    def __init__(self, net: SegFormer):
        super().__init__(auto_prefix=False)
        self.net = net

    def construct(self, image: Tensor) -> Tensor:
        return self.net.decode_head(self.net.backbone(image))


def init_weights(net: SegFormer, seed: int) -> None:
    """Draw all weights anew from `seed`, as the authors do.

    Dense layers of the encoder N(0, 0.02), its convolutions N(0, sqrt(2 groups / (k * k * C_out))), their biases 0; in
    the head linear_fuse N(0, sqrt(2 / E)), the others uniform within 1 / sqrt(C_in), biases too.
    """
    rng = np.random.default_rng(seed)

    def fill(parameter: Parameter, values: np.ndarray) -> None:
        parameter.set_data(Tensor(values.astype(np.float32)))

    for _, cell in net.backbone.cells_and_names():
        if isinstance(cell, (nn.Dense, nn.Conv2d)):
            deviation = 0.02
            if cell.weight.ndim == 4 and cell.weight.shape[2] > 1:
                out_channels, _, height, width = cell.weight.shape
                deviation = math.sqrt(2.0 * cell.group / (height * width * out_channels))
            fill(cell.weight, rng.normal(0, deviation, cell.weight.shape))
            fill(cell.bias, np.zeros(cell.bias.shape))
    head = net.decode_head
    fill(head.linear_fuse.weight, rng.normal(0, math.sqrt(2.0 / head.width), head.linear_fuse.weight.shape))
    for cell in (*head.linear_c, head.linear_pred):
        bound = cell.weight.shape[1] ** -0.5
        fill(cell.weight, rng.uniform(-bound, bound, cell.weight.shape))
        fill(cell.bias, rng.uniform(-bound, bound, cell.bias.shape))


def build(
    backbone: str, num_classes: int, decoder_dim: int, seed: int, sync_bn: bool = False, erf: nn.Cell = None
) -> SegFormer:
    """A network with fresh weights; training, evaluation and export all start here.

    `sync_bn` normalises over the images of all ranks. MindSpore has that operator for Ascend only.
    """
    norm = nn.SyncBatchNorm if sync_bn else nn.BatchNorm2d
    net = SegFormer(backbone, num_classes, decoder_dim, norm, erf)
    init_weights(net, seed)
    return net
