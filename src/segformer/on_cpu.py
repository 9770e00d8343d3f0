"""SegFormer on the CPU kernels: the same parameters and function as network.py, on maps instead of tokens.

`accelerate` replaces a network's stages and head; they hold custom operators, so export a freshly built network.
Shapes as in network.py: N images, h x w the size of a stage's map, C its channels, E the channels of the decode head.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mindspore as ms
from mindspore import Tensor, nn, ops

from src.cpu_kernels import availability, cells, rewrite
from src.cpu_kernels.custom import custom_operator, settings
from src.segformer.network import Attention, Block, Head, SegFormer, Stage


class MapNorm(nn.Cell):
    """(N, C, h, w) -> same shape: a layer normalisation of tokens, applied to a map."""

    def __init__(self, norm: nn.LayerNorm, library: Path):
        super().__init__(auto_prefix=False)
        self.gamma = norm.gamma
        self.beta = norm.beta
        self.eps = settings("ChannelNorm", "eps", eps=norm.epsilon)
        self.operator = custom_operator(library, "ChannelNorm")

    def construct(self, x: Tensor) -> Tensor:
        return self.operator(x, self.gamma, self.beta, self.eps)[0]


class MapAttention(nn.Cell):
    """x + keep * attention(normalised x), on maps; the Parameters of `attention`."""

    def __init__(self, attention: Attention, library: Path):
        super().__init__(auto_prefix=False)
        self.q = attention.q
        self.kv = attention.kv
        self.proj = attention.proj
        self.reduction = attention.reduction
        if attention.reduction > 1:
            self.sr = cells.Conv(attention.sr, library)
            self.norm = MapNorm(attention.norm, library)
        self.heads = settings("Attention", "heads", heads=attention.heads)
        self.dense = custom_operator(library, "Dense")
        self.dense_residual = custom_operator(library, "DenseResidual")
        self.attention = custom_operator(library, "Attention", heads=attention.heads)

    def construct(self, x: Tensor, normalized: Tensor, keep: Tensor) -> Tensor:
        q = self.dense(normalized, self.q.weight, self.q.bias)
        source = self.norm(self.sr(normalized)) if self.reduction > 1 else normalized
        kv = self.dense(source, self.kv.weight, self.kv.bias)
        mixed = self.attention(q, kv, self.heads)[0]
        return self.dense_residual(mixed, self.proj.weight, self.proj.bias, x, keep)


class MapFeedForward(nn.Cell):
    """x + keep * feed-forward(normalised x), on maps; the Parameters of `mlp`."""

    def __init__(self, mlp: nn.Cell, library: Path):
        super().__init__(auto_prefix=False)
        self.fc1 = mlp.fc1
        self.dwconv = mlp.dwconv
        self.fc2 = mlp.fc2
        self.dense = custom_operator(library, "Dense")
        self.dense_residual = custom_operator(library, "DenseResidual")
        self.depthwise_gelu = custom_operator(library, "DepthwiseGelu")

    def construct(self, x: Tensor, normalized: Tensor, keep: Tensor) -> Tensor:
        narrow, wide = x.shape[1], self.dwconv.weight.shape[0]
        hidden = self.dense(normalized, self.fc1.weight.reshape(wide, narrow), self.fc1.bias)
        hidden = self.depthwise_gelu(hidden, self.dwconv.weight, self.dwconv.bias)
        return self.dense_residual(hidden, self.fc2.weight.reshape(narrow, wide), self.fc2.bias, x, keep)


class MapBlock(nn.Cell):
    """(N, C, h, w) -> same shape: network.Block on a map."""

    def __init__(self, block: Block, library: Path):
        super().__init__(auto_prefix=False)
        self.norm1 = MapNorm(block.norm1, library)
        self.attn = MapAttention(block.attn, library)
        self.norm2 = MapNorm(block.norm2, library)
        self.mlp = MapFeedForward(block.mlp, library)

    def construct(self, x: Tensor, keep_attention: Tensor, keep_mlp: Tensor) -> Tensor:
        x = self.attn(x, self.norm1(x), keep_attention)
        return self.mlp(x, self.norm2(x), keep_mlp)


class MapStage(nn.Cell):
    """(N, C_in, H, W) -> (N, C, h, w): network.Stage without tokens."""

    def __init__(self, stage: Stage, library: Path):
        super().__init__(auto_prefix=False)
        self.proj = cells.Conv(stage.patch_embed.proj, library)
        self.patch_norm = MapNorm(stage.patch_embed.norm, library)
        self.blocks = nn.CellList([MapBlock(block, library) for block in stage.blocks], auto_prefix=False)
        self.norm = MapNorm(stage.norm, library)

    def construct(self, x: Tensor, keep: Tensor = None) -> Tensor:
        x = self.patch_norm(self.proj(x))
        whole = ops.ones((x.shape[0],), ms.float32)
        for index, block in enumerate(self.blocks):
            x = block(x, whole, whole) if keep is None else block(x, keep[index, 0], keep[index, 1])
        return self.norm(x)


class MapHead(nn.Cell):
    """The maps of the four stages -> logits (N, K, h, w): network.Head, whose order of the matrices it keeps."""

    def __init__(self, head: Head, library: Path):
        super().__init__(auto_prefix=False)
        self.linear_c = head.linear_c
        self.linear_fuse = head.linear_fuse
        # SyncBatchNorm, the other one, is for Ascend only.
        self.bn = cells.FusedBatchNorm(head.bn, library, "ReLU")
        self.linear_pred = head.linear_pred
        self.width = head.width
        self.library = library
        self.dense = custom_operator(library, "Dense")
        self.resize_sum = custom_operator(library, "ResizeSum")

    def construct(self, maps: tuple, keep: Tensor = None) -> Tensor:
        fused = ()  # type: tuple  # as a comment: graph mode compiles no annotation
        for index, layer in enumerate(self.linear_c):
            start = (len(self.linear_c) - 1 - index) * self.width
            fuse = self.linear_fuse.weight[:, start : start + self.width]  # (E, E)
            weight, bias = ops.matmul(fuse, layer.weight), ops.matmul(fuse, layer.bias)
            fused = (*fused, self.dense(maps[index], weight, bias))
        x = self.bn(self.resize_sum(*fused))
        if keep is not None:
            x = x * keep.reshape(keep.shape[0], keep.shape[1], 1, 1)
        classes = self.linear_pred.weight.shape[0]
        return self.dense(x, self.linear_pred.weight.reshape(classes, self.width), self.linear_pred.bias)


def accelerate(net: SegFormer, mode: str = "auto") -> str:
    """Put the kernels into a network in place; returns one sentence for the log. Modes as in rewrite.accelerate.

    Parameter objects, their names and their order stay as they are.
    """
    library, reason = availability.find_library(mode)
    if library is None:
        return availability.off_because(reason)
    stages = net.backbone.stages
    for name, stage in list(stages.name_cells().items()):
        rewrite.replace_child(stages, name, MapStage(stage, library))
    rewrite.replace_child(net, "decode_head", MapHead(net.decode_head, library))
    blocks = sum(len(stage.blocks) for stage in stages)
    return f"CPU kernels: {blocks} transformer blocks, {len(stages)} patch embeddings and the decode head replaced"


def loss_of(net: SegFormer, weights: Tensor, ignore: int) -> Callable | None:
    """The training loss in one kernel, as a function of the network's inputs and the label; None for a stock network.

    `f(image, label, keep_path, keep_channel)` equals loss.cross_entropy of the network's output; label (N, H, W).
    """
    if not isinstance(net.decode_head, MapHead):
        return None
    operator = custom_operator(net.decode_head.library, "PixelLoss")
    ignored = settings("PixelLoss", "ignore", ignore=ignore)

    def loss(image: Tensor, label: Tensor, keep_path: Tensor, keep_channel: Tensor) -> Tensor:
        logits = net.decode_head(net.backbone(image, keep_path), keep_channel)
        return operator(logits, label.astype(ms.int32), weights, ignored)[0][0]

    return loss
