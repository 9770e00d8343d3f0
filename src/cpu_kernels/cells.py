"""Cells that run the compiled kernels, and `accelerate`, which puts them into a network. Platform CPU only.

The cells hold custom operators, so export a freshly built network rather than an accelerated one.
Shapes: N images, C channels, H x W pixels.
"""

from collections import Counter
from pathlib import Path
from typing import Optional

import mindspore as ms
from mindspore import Tensor, nn, ops

from src.cpu_kernels import map_operators
from src.cpu_kernels.build import KernelsUnavailable, library_path
from src.cpu_kernels.custom import custom_operator as _operator
from src.engine.errors import ZooError

MODES = ("auto", "on", "off")
ACTIVATIONS = {nn.ReLU: "ReLU", nn.ReLU6: "ReLU6"}  # what a normalisation's kernel can do in the same pass


def _depthwise_operator(library: Path, stride: int) -> ops.Custom:
    """(N, C, H, W), weight (C, 1, 3, 3) -> (N, C, ceil(H / stride), ceil(W / stride))."""
    backward = _operator(library, f"DepthwiseBackwardS{stride}", lambda x, weight, dy: (x, weight), outputs=2)

    def bprop(x, weight, out, dout):
        return backward(x, weight, dout)

    def out_shape(x, weight):
        return [x[0], x[1], (x[2] - 1) // stride + 1, (x[3] - 1) // stride + 1]

    return _operator(library, f"DepthwiseForwardS{stride}", out_shape, bprop=bprop)


def _pointwise_operator(library: Path) -> ops.Custom:
    """(N, C_in, H, W), weight (C_out, C_in, 1, 1) -> (N, C_out, H, W)."""
    backward = _operator(library, "PointwiseBackward", lambda x, weight, dy: (x, weight), outputs=2)

    def bprop(x, weight, out, dout):
        return backward(x, weight, dout)

    def out_shape(x, weight):
        return [x[0], weight[0], x[2], x[3]]

    return _operator(library, "PointwiseForward", out_shape, bprop=bprop)


def _train_operator(library: Path, suffix: str) -> ops.Custom:
    """x, gamma, beta, moving mean, moving variance, settings -> y, mean, 1 / std, new moving mean and variance."""
    backward = _operator(
        library,
        f"BatchNormTrainBackward{suffix}",
        lambda x, gamma, beta, mean, inverse_std, dy: (x, gamma, beta),
        outputs=3,
    )

    def bprop(x, gamma, beta, moving_mean, moving_variance, settings, out, dout):
        dx, dgamma, dbeta = backward(x, gamma, beta, out[1], out[2], dout[0])
        return dx, dgamma, dbeta, ops.zeros_like(moving_mean), ops.zeros_like(moving_variance), ops.zeros_like(settings)

    return _operator(
        library,
        f"BatchNormTrain{suffix}",
        lambda x, gamma, beta, mean, variance, settings: (x, mean, mean, mean, variance),
        outputs=5,
        bprop=bprop,
    )


def _infer_operator(library: Path, suffix: str) -> ops.Custom:
    """x, gamma, beta, moving mean, moving variance, settings -> y."""
    backward = _operator(
        library,
        f"BatchNormInferBackward{suffix}",
        lambda x, gamma, beta, mean, variance, settings, dy: (x, gamma, beta),
        outputs=3,
    )

    def bprop(x, gamma, beta, moving_mean, moving_variance, settings, out, dout):
        dx, dgamma, dbeta = backward(x, gamma, beta, moving_mean, moving_variance, settings, dout)
        return dx, dgamma, dbeta, ops.zeros_like(moving_mean), ops.zeros_like(moving_variance), ops.zeros_like(settings)

    return _operator(
        library,
        f"BatchNormInfer{suffix}",
        lambda x, gamma, beta, mean, variance, settings: x,
        bprop=bprop,
    )


def _norm_depthwise_operator(library: Path, stride: int) -> ops.Custom:
    """x, gamma, beta, moving mean, moving variance, settings, weight -> as _train_operator, y after the convolution."""
    backward = _operator(
        library,
        f"NormDepthwiseBackwardS{stride}",
        lambda x, gamma, beta, mean, inverse_std, weight, dy: (x, gamma, beta, weight),
        outputs=4,
    )

    def bprop(x, gamma, beta, moving_mean, moving_variance, settings, weight, out, dout):
        dx, dgamma, dbeta, dweight = backward(x, gamma, beta, out[1], out[2], weight, dout[0])
        zeros = ops.zeros_like(moving_mean), ops.zeros_like(moving_variance), ops.zeros_like(settings)
        return dx, dgamma, dbeta, *zeros, dweight

    def out_shape(x, gamma, beta, mean, variance, settings, weight):
        y = [x[0], x[1], (x[2] - 1) // stride + 1, (x[3] - 1) // stride + 1]
        return y, mean, mean, mean, variance

    return _operator(library, f"NormDepthwiseS{stride}", out_shape, outputs=5, bprop=bprop)


def fake_quant_operator(library: Path) -> ops.Custom:
    """x, scale (R,), zero point (R,), (low, high) -> x on the grid, (least, greatest x); R is 1 or the length of x."""
    backward = _operator(library, "FakeQuantBackward", lambda x, scale, zero_point, limits, dy: (x, scale), outputs=2)

    def bprop(x, scale, zero_point, limits, out, dout):
        dx, dscale = backward(x, scale, zero_point, limits, dout[0])
        return dx, dscale, ops.zeros_like(zero_point), ops.zeros_like(limits)

    return _operator(
        library,
        "FakeQuantForward",
        lambda x, scale, zero_point, limits: (x, limits),
        outputs=2,
        bprop=bprop,
    )


def range_fake_quant_operator(library: Path) -> ops.Custom:
    """x, range (2,), (low, high, symmetric, decay) -> x on the grid over the range, moved range, scale, zero point."""
    backward = _operator(library, "FakeQuantBackward", lambda x, scale, zero_point, limits, dy: (x, scale), outputs=2)

    def bprop(x, extent, settings, out, dout):
        dx = backward(x, out[2], out[3], settings, dout[0])[0]
        return dx, ops.zeros_like(extent), ops.zeros_like(settings)

    return _operator(
        library, "RangeFakeQuantForward", lambda x, extent, settings: (x, extent, [1], [1]), outputs=4, bprop=bprop
    )


def folded_fake_quant_operator(library: Path) -> ops.Custom:
    """weight, gamma, variance, (low, high, symmetric, per channel, eps) -> FQ(weight * factor) / factor, 1 / std.

    weight (C, ...), gamma (C,), variance (C,); factor = gamma / std; the grids span the product.
    """
    backward = _operator(
        library, "FoldedFakeQuantBackward", lambda weight, gamma, inverse_std, settings, dy: (weight, gamma), outputs=2
    )

    def bprop(weight, gamma, variance, settings, out, dout):
        dweight, dgamma = backward(weight, gamma, out[1], settings, dout[0])
        return dweight, dgamma, ops.zeros_like(variance), ops.zeros_like(settings)

    return _operator(
        library,
        "FoldedFakeQuantForward",
        lambda weight, gamma, variance, settings: (weight, gamma),
        outputs=2,
        bprop=bprop,
    )


class DepthwiseConv3x3(nn.Cell):
    """(N, C, H, W) -> (N, C, ceil(H / stride), ceil(W / stride)), with the Parameters of `conv`."""

    def __init__(self, conv: nn.Conv2d, library: Path):
        super().__init__()
        self.weight = conv.weight
        self.bias = conv.bias if conv.has_bias else None
        self.stride = conv.stride[0]
        self.operator = _depthwise_operator(library, self.stride)

    def construct(self, x: Tensor) -> Tensor:
        out = self.operator(x, self.weight)
        return out if self.bias is None else ops.bias_add(out, self.bias)


class PointwiseConv(nn.Cell):
    """(N, C_in, H, W) -> (N, C_out, H, W), with the Parameters of the 1x1 convolution `conv`."""

    def __init__(self, conv: nn.Conv2d, library: Path):
        super().__init__()
        self.weight = conv.weight
        self.bias = conv.bias if conv.has_bias else None
        self.operator = _pointwise_operator(library)

    def construct(self, x: Tensor) -> Tensor:
        out = self.operator(x, self.weight)
        return out if self.bias is None else ops.bias_add(out, self.bias)


class Conv(nn.Cell):
    """(N, C_in, H, W) -> (N, C_out, h, w), with the Parameters of `conv`, whose filter has equal sides."""

    def __init__(self, conv: nn.Conv2d, library: Path):
        super().__init__(auto_prefix=False)
        self.weight = conv.weight
        self.bias = conv.bias if conv.has_bias else Tensor([0.0] * conv.out_channels, ms.float32)
        kernel, stride = conv.kernel_size[0], conv.stride[0]
        padding = _sides(conv.padding)[0] if conv.pad_mode == "pad" else 0
        self.settings = Tensor([stride, padding], ms.float32)
        self.operator = map_operators.conv(library, kernel, stride, padding)

    def construct(self, x: Tensor) -> Tensor:
        return self.operator(x, self.weight, self.bias, self.settings)


class NormDepthwise(nn.Cell):
    """(N, C, H, W) -> (N, C, ceil(H / stride), ceil(W / stride)): `norm` with ReLU6, then `conv`.

    In training with the batch's statistics what lies between the two is never stored.
    """

    def __init__(self, norm: "FusedBatchNorm", conv: DepthwiseConv3x3, library: Path):
        super().__init__(auto_prefix=False)
        self.norm, self.conv = norm, conv
        self.operator = _norm_depthwise_operator(library, conv.stride)

    def construct(self, x: Tensor) -> Tensor:
        norm = self.norm
        if not norm.uses_batch():
            return self.conv(norm(x))
        outputs = self.operator(
            x, norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance, norm.settings, self.conv.weight
        )
        ops.assign(norm.moving_mean, outputs[3])
        ops.assign(norm.moving_variance, outputs[4])
        return outputs[0]


class FusedBatchNorm(nn.Cell):
    """(N, C, H, W) -> same shape: `norm` with its own Parameters, then `activation` ("Linear", "ReLU", "ReLU6")."""

    def __init__(self, norm: nn.BatchNorm2d, library: Path, activation: str = "Linear"):
        super().__init__()
        # The order of nn.BatchNorm2d, so that parameters are listed in the same order as before.
        self.moving_mean = norm.moving_mean
        self.moving_variance = norm.moving_variance
        self.gamma = norm.gamma
        self.beta = norm.beta
        self.use_batch_statistics = norm.use_batch_statistics
        # nn.BatchNorm2d stores the share of the new value; the kernels want the share of the old one.
        self.settings = Tensor([norm.eps, 1.0 - norm.momentum], ms.float32)
        self.activation = activation
        self.train_operator = _train_operator(library, activation)
        self.infer_operator = _infer_operator(library, activation)

    def uses_batch(self) -> bool:
        """Whether the batch's statistics normalise, rather than the moving ones."""
        return self.training if self.use_batch_statistics is None else self.use_batch_statistics

    def construct(self, x: Tensor) -> Tensor:
        if not self.uses_batch():
            return self.infer_operator(x, self.gamma, self.beta, self.moving_mean, self.moving_variance, self.settings)
        # Indices instead of unpacking: graph mode warns about every output that is unpacked and not used.
        outputs = self.train_operator(x, self.gamma, self.beta, self.moving_mean, self.moving_variance, self.settings)
        ops.assign(self.moving_mean, outputs[3])
        ops.assign(self.moving_variance, outputs[4])
        return outputs[0]


def find_library(mode: str) -> tuple[Optional[Path], str]:
    """The compiled kernels, or None and the reason: "off", or "auto" where they cannot be compiled."""
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, not {mode}")
    if mode == "off":
        return None, "not wanted"
    try:
        return library_path(), ""
    except KernelsUnavailable as reason:
        if mode == "on":
            raise ZooError(f"the CPU kernels are required but not available: {reason}") from reason
        return None, str(reason)


def off_because(reason: str) -> str:
    """The sentence for the log where a network keeps its stock operators."""
    slow = f", and MindSpore {ms.__version__}'s own convolutions are many times slower than those of 2.8"
    return f"CPU kernels off: {reason}; stock operators are used" + (slow if stock_convolutions_are_slow() else "")


def accelerate(net: nn.Cell, mode: str = "auto", weights_vary: bool = False) -> str:
    """Replace depthwise and pointwise convolutions and batch normalisations in place; returns one sentence for the log.

    Parameter objects, their names and their order stay as they are. A batch normalisation takes in the ReLU or ReLU6
    that follows it in its sequence; with ReLU6 it becomes one cell with the depthwise convolution in the sequence after
    it. `weights_vary` leaves that out, and larger filters: then every convolution can be called with another weight, by
    its `operator` or, where it is stock, `conv2d`.
    "off" changes nothing, "auto" neither if the kernels cannot be compiled here, and "on" raises ZooError then.
    """
    library, reason = find_library(mode)
    if library is None:
        return off_because(reason)
    replaced = {}
    for _, parent in list(net.cells_and_names()):
        _replace_children(parent, library, replaced, route_large=not weights_vary)
    joined = 0 if weights_vary else _join_all(net, library)
    depthwise, pointwise, larger, norms = (
        sum(isinstance(cell, kind) for cell in replaced.values())
        for kind in (DepthwiseConv3x3, PointwiseConv, Conv, FusedBatchNorm)
    )
    kinds = [f"{depthwise} depthwise", f"{pointwise} pointwise", *([f"{larger} larger"] if larger else [])]
    return f"CPU kernels: {' and '.join(kinds)} convolutions and {norms} batch normalisations replaced" + (
        f", {joined} of them joined" if joined else ""
    )


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
        norm, conv = before._cells.get(last), after._cells.get(first)
        if (
            isinstance(norm, FusedBatchNorm)
            and norm.activation == "ReLU6"
            and isinstance(conv, DepthwiseConv3x3)
            and conv.bias is None
        ):
            after._cells[first] = NormDepthwise(norm, conv, library).set_train(conv.training)
            before._cells[last] = nn.Identity()
            for sequence in (before, after):
                sequence.cell_list = list(sequence._cells.values())
            joined += 1
    return joined


def _replace_children(parent: nn.Cell, library: Path, replaced: dict, route_large: bool) -> None:
    """Replace the children of one cell; `replaced` maps a stock cell to its successor, for cells used twice."""
    # Written to `_cells` directly: assigning through the cell would put the prefix into the parameter names again.
    children = parent._cells
    is_sequence = isinstance(parent, nn.SequentialCell)
    for name, following in zip(list(children), [*list(children)[1:], None]):
        cell = children[name]
        activation = ACTIVATIONS.get(type(children.get(following)), "Linear") if is_sequence else "Linear"
        key = (cell, activation)
        successor = replaced.get(key) or _successor(cell, library, activation, route_large)
        if successor is None:
            continue
        children[name] = replaced[key] = successor.set_train(cell.training)
        if activation != "Linear" and isinstance(successor, FusedBatchNorm):
            children[following] = nn.Identity()
    if is_sequence:
        parent.cell_list = list(children.values())


def _successor(cell: nn.Cell, library: Path, activation: str, route_large: bool) -> Optional[nn.Cell]:
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
    return Conv(cell, library) if route_large and stock_convolutions_are_slow() and _is_large(cell) else None


def stock_convolutions_are_slow() -> bool:
    """From 2.9 on, MindSpore's filters larger than 1x1 run oneDNN's reference code on CPU, twenty times slower."""
    return tuple(int(part) for part in ms.__version__.split(".")[:2]) >= (2, 9)


def _is_large(conv: nn.Conv2d) -> bool:
    """True for a dense filter of equal sides, larger than 1x1, with one stride and one padding."""
    return (
        conv.group == 1
        and conv.kernel_size[0] == conv.kernel_size[1] > 1
        and conv.stride[0] == conv.stride[1]
        and tuple(conv.dilation) == (1, 1)
        and (conv.pad_mode == "valid" or conv.pad_mode == "pad" and len(set(_sides(conv.padding))) == 1)
    )


def _sides(padding: "int | tuple[int, ...]") -> tuple:
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
