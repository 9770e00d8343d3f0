"""The quantised network in evaluation on whole numbers: what integer kernels compute, in onnxruntime's order.

Fifty layers of rounding magnify the last bit of a sum, so fake quantisation in floats and integer kernels disagree on
about one image in fifty where margins are small. Here whole numbers are added up, which float32 does exactly below
2**24, and scaled as onnxruntime's QLinearConv, QLinearAdd and QLinearGlobalAveragePool do it on x86 with VNNI (older
ones clip some sums of two products to 16 bits). Layers that are left float, and ReLU6 where the grid after it does not
do its work, are computed in float there and equal to a rounding only.

Between the layers goes q - zero_point, as float32. For platform CPU with the compiled kernels; training, files other
than ONNX and other platforms stay with floats on grids.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from src.cpu_kernels.custom import custom_operator, settings
from src.quantisation.quantiser import BN_EPS, MAXIMUM, MINIMUM, RELU6, ROUND

UNSIGNED = 128.0  # onnxruntime's zero points are those of uint8, q + 128
SUM_OF, CONCATENATED = ops.ReduceSum(), ops.Concat()


class OnGrid(nn.Cell):
    """x / scale (N, C, ...) -> the nearest whole numbers of the target's grid, less its zero point. NaN stays NaN."""

    def __init__(self, target: nn.Cell, channels: int, library: Path):
        super().__init__(auto_prefix=False)
        self.target = target
        self.zeros, self.ones = Tensor(np.zeros(channels), ms.float32), Tensor(np.ones(channels), ms.float32)
        self.requantise = custom_operator(library, "IntRequantise")

    def construct(self, exact: Tensor) -> Tensor:
        return self.requantise(exact, self.zeros, self.ones, limits(self.target, False))


def limits(target: nn.Cell, relu6: bool) -> Tensor:
    """(2,): least and greatest q - zero_point of a grid, between those of 0 and 6 if `relu6`."""
    scale, zero_point = target.scale_and_zero_point()
    least, greatest = target.grid.low - zero_point, target.grid.high - zero_point
    if relu6:
        least, greatest = MAXIMUM(least, 0.0), MINIMUM(greatest, ROUND(RELU6 / scale))
    return CONCATENATED((least, greatest))


class IntImage(nn.Cell):
    """Image (N, 3, H, W) float -> whole numbers on the grid of `target`."""

    def __init__(self, target: nn.Cell, library: Path):
        super().__init__(auto_prefix=False)
        self.target, self.on_grid = target, OnGrid(target, 3, library)

    def construct(self, image: Tensor) -> Tensor:
        return self.on_grid(image / self.target.scale_and_zero_point()[0])


class IntConv(nn.Cell):
    """Whole numbers (N, C_in, H, W) -> whole numbers (N, C_out, h, w): convolution, BN as a bias, ReLU6 if `relu6`.

    `source` and `target` are the quantisers of what goes in and out; `source` None stands for a float image.
    """

    def __init__(self, layer: nn.Cell, source: nn.Cell | None, target: nn.Cell, relu6: bool, library: Path):
        super().__init__(auto_prefix=False)
        self.layer, self.target, self.relu6 = layer, target, relu6
        self.source: Any = source  # None goes with `is_float` only, which graph mode need not be told again
        self.is_float = layer.quantiser is None or source is None
        self.requantise = custom_operator(library, "IntRequantise")
        if self.is_float:
            return
        self.filters = custom_operator(library, "IntFilters")
        quantiser, grid = layer.quantiser, layer.quantiser.grid
        self.settings = settings(
            "IntFilters", low=grid.low, high=grid.high, symmetric=grid.symmetric,
            per_channel=quantiser.per_channel, eps=BN_EPS, learned=quantiser.is_learned,
        )  # fmt: skip
        self.not_learned = Tensor([1.0], ms.float32)

    def construct(self, x: Tensor) -> Tensor:
        weight, bias, factor = self.float_filters() if self.is_float else self.int_filters()
        sums = self.layer.convolve(x, weight)
        return self.requantise(sums, bias, factor, limits(self.target, self.relu6))

    def int_filters(self) -> tuple[Tensor, Tensor, Tensor]:
        """Whole weight (C_out, ...), whole bias (C_out,), and their factor (C_out,) for the grid of the output."""
        layer, source, target = self.layer, self.source, self.target
        learned = (
            layer.quantiser.scale_and_zero_point(layer.weight)[0] if layer.quantiser.is_learned else self.not_learned
        )
        found = self.filters(
            layer.weight, layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance, learned,
            source.scale_and_zero_point()[0], target.scale_and_zero_point()[0], self.settings,
        )  # fmt: skip
        return found[0], found[1], found[2]

    def float_filters(self) -> tuple[Tensor, Tensor, Tensor]:
        """The same of a layer that is left in float."""
        bias, step = self.layer.folded_bias(), self.target.scale_and_zero_point()[0]
        source = self.source.scale_and_zero_point()[0] if self.source is not None else ops.ones_like(step)
        return self.layer.folded_weight(), bias / source, ops.ones_like(bias) * (source / step)


class IntSum(nn.Cell):
    """Whole numbers a, b of two grids, same shape -> their sum on the grid of `target`."""

    def __init__(self, a: nn.Cell, b: nn.Cell, target: nn.Cell, library: Path):
        super().__init__(auto_prefix=False)
        self.a, self.b, self.target = a, b, target
        self.limits = Tensor([target.grid.low + UNSIGNED, target.grid.high + UNSIGNED], ms.float32)
        self.operator = custom_operator(library, "IntSum")

    def construct(self, a: Tensor, b: Tensor) -> Tensor:
        scale_a, zero_a = self.a.scale_and_zero_point()
        scale_b, zero_b = self.b.scale_and_zero_point()
        scale, zero = self.target.scale_and_zero_point()
        zero_a, zero_b, zero = zero_a + UNSIGNED, zero_b + UNSIGNED, zero + UNSIGNED
        numbers = CONCATENATED((zero_a, zero_b, scale_a / scale, scale_b / scale, zero, self.limits))
        return self.operator(a, b, numbers)


class IntMean(nn.Cell):
    """Whole numbers (N, C, h, w) -> pooled features (N, C) as float, on the grid of `target` unless that is None."""

    def __init__(self, source: nn.Cell, target: nn.Cell | None, channels: int, library: Path):
        super().__init__(auto_prefix=False)
        self.source, self.target = source, target
        self.on_grid = OnGrid(target, channels, library) if target is not None else None

    def construct(self, x: Tensor) -> Tensor:
        area, step = float(x.shape[2] * x.shape[3]), self.source.scale_and_zero_point()[0]
        sums = SUM_OF(x, (2, 3))
        if self.target is None or self.on_grid is None:
            return sums * step / area
        scale = self.target.scale_and_zero_point()[0]
        return self.on_grid(sums * (step / (scale * area))) * scale


class InTurn(nn.Cell):
    """One cell after the other. Not a SequentialCell, which renames their parameters."""

    def __init__(self, parts: list[nn.Cell]):
        super().__init__(auto_prefix=False)
        self.parts = nn.CellList(parts, auto_prefix=False)

    def construct(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part(x)
        return x


class IntResidual(nn.Cell):
    """Whole numbers on the grid of `source` -> their sum with what `convs` make of them, on that of `target`."""

    def __init__(self, convs: list[IntConv], source: nn.Cell, target: nn.Cell, library: Path):
        super().__init__(auto_prefix=False)
        self.convs, self.total = InTurn(convs), IntSum(source, convs[-1].target, target, library)

    def construct(self, x: Tensor) -> Tensor:
        return self.total(x, self.convs(x))
