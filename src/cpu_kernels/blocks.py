"""Inverted residual blocks as one operator each, with channels last from the first to the last. Platform CPU only.

A block has the Parameters of the cell that it replaces. Shapes: N images, C channels, H x W pixels.
"""

from __future__ import annotations

from pathlib import Path

from mindspore import Tensor, nn, ops

from src.cpu_kernels.cells import FusedBatchNorm, NormDepthwise, PointwiseConv
from src.cpu_kernels.custom import custom_operator

LEAST_PIXELS = 1024  # of a batch: with fewer the operators for small planes are faster
VECTOR = 16  # hidden channels have to be a multiple of it


class InvertedResidual(nn.Cell):
    """(N, H, W, C) -> (N, ceil(H / stride), ceil(W / stride), C_out), with statistics of the batch.

    `stock` is the block on (N, C, H, W), its parts already replaced; `parts` is what `parts_of` finds in it. With
    `dtype` "bfloat16" hidden maps are stored, and products computed, in bfloat16; sums, statistics and what goes from
    block to block are float32.
    """

    def __init__(self, stock: nn.Cell, parts: tuple[nn.Cell, ...], library: Path, dtype: str = "float32"):
        super().__init__(auto_prefix=False)
        self.stock = stock  # first, so that parameters are listed in the same order as before
        self.expand, self.middle, self.second, self.project, self.third = parts
        self.first = self.middle.norm
        self.settings = self.first.settings
        name = "InvertedResidualBfloat16" if dtype == "bfloat16" else "InvertedResidual"
        suffix = "Sum" if stock.has_shortcut else ""
        variant = f"S{self.middle.conv.stride}{suffix}"
        self.operator = custom_operator(library, name, variant)

    def uses_batch(self) -> bool:
        """Whether the batch's statistics normalise everywhere."""
        return self.first.uses_batch() and self.second.uses_batch() and self.third.uses_batch()

    def construct(self, x: Tensor) -> Tensor:
        first, second, third = self.first, self.second, self.third
        weights = (self.expand.weight, self.middle.conv.weight, self.project.weight)
        norms = (
            *(first.gamma, first.beta, first.moving_mean, first.moving_variance),
            *(second.gamma, second.beta, second.moving_mean, second.moving_variance),
            *(third.gamma, third.beta, third.moving_mean, third.moving_variance),
        )
        # Indices instead of unpacking: graph mode warns about every output that is unpacked and not used.
        outputs = self.operator(x, *weights, *norms, self.settings)
        ops.assign(first.moving_mean, outputs[7])
        ops.assign(first.moving_variance, outputs[8])
        ops.assign(second.moving_mean, outputs[11])
        ops.assign(second.moving_variance, outputs[12])
        ops.assign(third.moving_mean, outputs[15])
        ops.assign(third.moving_variance, outputs[16])
        return outputs[0]


class Chain(nn.Cell):
    """(N, C, H, W) -> (N, C_out, h, w): blocks, each with its parts, in turn; as one operator where that is faster."""

    def __init__(self, blocks: list[tuple[nn.Cell, tuple[nn.Cell, ...]]], library: Path, dtype: str = "float32"):
        super().__init__(auto_prefix=False)
        self.blocks = nn.CellList([InvertedResidual(*block, library, dtype) for block in blocks], auto_prefix=False)
        self.channels_last = custom_operator(library, "ChannelsLast")
        self.channels_first = custom_operator(library, "ChannelsFirst")

    def construct(self, x: Tensor) -> Tensor:
        is_last = False
        for block in self.blocks:
            is_large = x.size // x.shape[3 if is_last else 1] >= LEAST_PIXELS
            wants_last = block.uses_batch() and is_large
            if wants_last and not is_last:
                x = self.channels_last(x)
            if is_last and not wants_last:
                x = self.channels_first(x)
            is_last = wants_last
            x = block(x) if is_last else block.stock(x)
        return self.channels_first(x) if is_last else x


def parts_of(block: nn.Cell) -> tuple[nn.Cell, ...] | None:
    """Expansion, its normalisation with the filter, normalisation, projection, normalisation; None: no such block.

    A block has `conv`, the sequence of all that, and `has_shortcut`: whether its input is added to the result.
    """
    conv = getattr(block, "conv", None)
    if not isinstance(conv, nn.SequentialCell) or not isinstance(getattr(block, "has_shortcut", None), bool):
        return None
    cells = [cell for part in conv.cell_list for cell in _flat(part) if type(cell) is not nn.Identity]
    kinds = (PointwiseConv, NormDepthwise, FusedBatchNorm, PointwiseConv, FusedBatchNorm)
    if tuple(map(type, cells)) != kinds:
        return None
    expand, middle, second, project, third = cells
    norms = (middle.norm, second, third)
    fits = (
        [norm.activation for norm in norms] == ["ReLU6", "ReLU6", "Linear"]
        and len({tuple(norm.settings.asnumpy()) for norm in norms}) == 1
        and expand.bias is None
        and project.bias is None
        and expand.weight.shape[0] % VECTOR == 0
    )
    return tuple(cells) if fits else None


def _flat(cell: nn.Cell) -> list[nn.Cell]:
    """The cells of a sequence, or the cell."""
    return list(cell.cell_list) if isinstance(cell, nn.SequentialCell) else [cell]
