"""Replacing cells of networks in place; `accelerate` does so by those that run the compiled kernels."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import mindspore as ms
from mindspore import nn

from src.cpu_kernels import availability
from src.cpu_kernels.blocks import Chain, parts_of
from src.cpu_kernels.cells import Conv, DepthwiseConv3x3, FusedBatchNorm, NormDepthwise, PointwiseConv

ACTIVATIONS = {nn.ReLU: "ReLU", nn.ReLU6: "ReLU6"}  # what a normalisation's kernel can do in the same pass


def replace_child(parent: nn.Cell, name: str, new: nn.Cell) -> None:
    """Put `new` in the place of a child, in the child's training mode; parameters keep their names."""
    new.set_train(parent._cells[name].training)
    _set_children(parent, {**parent._cells, name: new})


def replace_parts(sequence: nn.SequentialCell, parts: list[nn.Cell]) -> None:
    """Replace all children of a sequence, by as many as there are in `parts`; parameters keep their names."""
    _set_children(sequence, {str(index): part for index, part in enumerate(parts)})


def _set_children(parent: nn.Cell, children: dict[str, nn.Cell]) -> None:
    # Written to `_cells` directly: assigning through the cell would put the prefix into the parameter names again.
    parent._cells.clear()
    parent._cells.update(children)
    if isinstance(parent, nn.SequentialCell):
        parent.cell_list = list(children.values())


def accelerate(net: nn.Cell, mode: str = "auto", weights_vary: bool = False, dtype: str = "float32") -> str:
    """Replace depthwise and pointwise convolutions and batch normalisations in place; returns one sentence for the log.

    Parameter objects, their names and their order stay as they are. A batch normalisation takes in the ReLU or ReLU6
    that follows it in its sequence; with ReLU6 it becomes one cell with the depthwise convolution in the sequence after
    it, and inverted residual blocks become one operator each. `weights_vary` leaves both out, and larger filters: then
    every convolution can be called with another weight, by its `operator` or, where it is stock, `conv2d`. With `dtype`
    "bfloat16" the blocks train in bfloat16, where the processor has instructions for it.
    "off" changes nothing, "auto" neither if the kernels cannot be compiled here, and "on" raises ZooError then.
    """
    library, reason = availability.find_library(mode)
    if library is None:
        return availability.off_because(reason)
    replaced: dict[tuple[nn.Cell, str], nn.Cell] = {}
    for _, parent in list(net.cells_and_names()):
        _replace_children(parent, library, replaced, route_large=not weights_vary)
    joined = 0 if weights_vary else _join_all(net, library)
    is_slow = dtype == "bfloat16" and not availability.has_bfloat16(library)
    whole = 0 if weights_vary else _chain_all(net, library, "float32" if is_slow else dtype)
    depthwise, pointwise, larger, norms = (
        sum(isinstance(cell, kind) for cell in replaced.values())
        for kind in (DepthwiseConv3x3, PointwiseConv, Conv, FusedBatchNorm)
    )
    kinds = [f"{depthwise} depthwise", f"{pointwise} pointwise", *([f"{larger} larger"] if larger else [])]
    said = f"CPU kernels: {' and '.join(kinds)} convolutions and {norms} batch normalisations replaced"
    said += f", {joined} of them joined" if joined else ""
    said += f", {whole} blocks computed whole" if whole else ""
    if is_slow:
        return f"{said}; in float32, because this processor has no instructions for bfloat16"
    return said + (", in bfloat16" if dtype == "bfloat16" else "")


def _join_all(net: nn.Cell, library: Path) -> int:
    """`_join` for every cell; how many."""
    cells = [cell for _, cell in net.cells_and_names()]
    uses = Counter(id(child) for cell in cells for child in cell._cells.values())
    return sum(_join(cell, uses, library) for cell in cells)


def _join(parent: nn.Cell, uses: Counter, library: Path) -> int:
    """Join normalisations at the end of one sequence with the depthwise convolution that begins the next; how many.

    `uses` counts, by their id, how often the network holds its cells.
    """
    if not isinstance(parent, nn.SequentialCell):
        return 0
    parts, joined = parent.cell_list, 0
    for before, after in zip(parts, parts[1:]):
        once = uses[id(before)] == uses[id(after)] == 1  # else their parts would have another neighbour too
        if not (once and isinstance(before, nn.SequentialCell) and isinstance(after, nn.SequentialCell)):
            continue
        last = next((name for name, cell in reversed(before._cells.items()) if type(cell) is not nn.Identity), None)
        first = next(iter(after._cells), None)
        if last is None or first is None:
            continue
        norm, conv = before._cells[last], after._cells[first]
        if (
            isinstance(norm, FusedBatchNorm)
            and norm.activation == "ReLU6"
            and isinstance(conv, DepthwiseConv3x3)
            and conv.bias is None
        ):
            replace_child(after, first, NormDepthwise(norm, conv, library))
            replace_child(before, last, nn.Identity())
            joined += 1
    return joined


def _chain_all(net: nn.Cell, library: Path, dtype: str) -> int:
    """Make a chain of the inverted residual blocks that follow each other in a sequence; how many blocks."""
    chained = 0
    for _, cell in list(net.cells_and_names()):
        if not isinstance(cell, nn.SequentialCell):
            continue
        found = [(name, child, parts_of(child)) for name, child in cell._cells.items()]
        for is_run, run in itertools.groupby(found, lambda item: item[2] is not None):
            names, *blocks = zip(*run)
            if not is_run:
                continue
            chain = Chain(list(zip(*blocks)), library, dtype)
            _set_children(cell, {**cell._cells, **dict.fromkeys(names, nn.Identity()), names[0]: chain})
            chained += len(names)
    return chained


def _replace_children(parent: nn.Cell, library: Path, replaced: dict, route_large: bool) -> None:
    """Replace the children of one cell; `replaced` maps a stock cell to its successor, for cells used twice."""
    children, is_sequence = parent._cells, isinstance(parent, nn.SequentialCell)
    for name, following in zip(list(children), [*list(children)[1:], None]):
        cell = children[name]
        activation = ACTIVATIONS.get(type(children.get(following)), "Linear") if is_sequence else "Linear"
        key = (cell, activation)
        successor = replaced.get(key) or _successor(cell, library, activation, route_large)
        if successor is None:
            continue
        replaced[key] = successor
        replace_child(parent, name, successor)
        if activation != "Linear" and isinstance(successor, FusedBatchNorm):
            replace_child(parent, following, nn.Identity())


def _successor(cell: nn.Cell, library: Path, activation: str, route_large: bool) -> nn.Cell | None:
    """The cell to put in place of a stock cell, or None; `activation` is what comes next."""
    # Exact types: a subclass may compute something else.
    if type(cell) is nn.BatchNorm2d:
        return FusedBatchNorm(cell, library, activation)
    if type(cell) is not nn.Conv2d or cell.weight.dtype != ms.float32:
        return None
    if _is_depthwise_3x3(cell):
        return DepthwiseConv3x3(cell, library)
    if _is_pointwise(cell):
        return PointwiseConv(cell, library)
    is_wanted = route_large and availability.stock_convolutions_are_slow()
    return Conv(cell, library) if is_wanted and _is_large(cell) else None


def _is_large(conv: nn.Conv2d) -> bool:
    """True for a dense filter of equal sides, larger than 1x1, with one stride and one padding."""
    return (
        conv.group == 1
        and conv.kernel_size[0] == conv.kernel_size[1] > 1
        and conv.stride[0] == conv.stride[1]
        and tuple(conv.dilation) == (1, 1)
        and (conv.pad_mode == "valid" or conv.pad_mode == "pad" and len(set(_sides(conv.padding))) == 1)
    )


def _sides(padding: int | tuple[int, ...]) -> tuple:
    return padding if isinstance(padding, tuple) else (padding,)


def _is_depthwise_3x3(conv: nn.Conv2d) -> bool:
    """True for one 3x3 filter per channel, stride 1 or 2, with a border of one pixel."""
    return (
        conv.group == conv.in_channels == conv.out_channels
        and tuple(conv.kernel_size) == (3, 3)
        and tuple(conv.stride) in ((1, 1), (2, 2))
        and tuple(conv.dilation) == (1, 1)
        and conv.pad_mode == "pad"
        and conv.padding in (1, (1, 1, 1, 1))
    )


def _is_pointwise(conv: nn.Conv2d) -> bool:
    """True for a dense 1x1 filter that keeps height and width; without "pad" the padding of 1x1 is always 0."""
    return (
        conv.group == 1
        and tuple(conv.kernel_size) == (1, 1)
        and tuple(conv.stride) == (1, 1)
        and (conv.pad_mode != "pad" or conv.padding in (0, (0, 0, 0, 0)))
    )
