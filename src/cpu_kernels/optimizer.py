"""The momentum optimizer and the moving average with one kernel for all parameters. Platform CPU only."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import mindspore as ms
from mindspore import ParameterTuple, Tensor, nn, ops

from src.cpu_kernels import availability
from src.cpu_kernels.custom import in_place_operator, settings


class FusedMomentum(nn.Momentum):
    """nn.Momentum for float32, with the same Parameters under the same names.

    A step of MobileNetV2 launches three operators instead of eight hundred.
    """

    def __init__(self, groups: list[dict], learning_rate: float, momentum: float, library: Path):
        super().__init__(groups, learning_rate=learning_rate, momentum=momentum)
        self.decays = Tensor([float(decay) for decay in self.weight_decay], ms.float32)
        self.library = library
        self.update = in_place_operator(library, "MomentumUpdate", len(self.params))

    def construct(self, gradients: tuple) -> Tensor:
        self.assignadd(self.global_step, self.global_step_increase_tensor)
        return self.update(self.learning_rate, self.momentum, self.decays, *self.params, *self.moments, *gradients)

    def average_mover(self, average: ParameterTuple, decay: float) -> Callable[[Tensor], Tensor]:
        """A function for a compiled step: x -> x, once the averages have moved towards the weights."""
        move = in_place_operator(self.library, "MovingAverage", len(average))
        numbers = settings("MovingAverage", decay=decay)
        weights = self.params

        def moved(x):
            return ops.depend(x, move(numbers, *average, *weights))

        return moved


def momentum_kind(mode: str) -> Callable[..., nn.Momentum]:
    """What builds the optimizer: FusedMomentum, or MindSpore's where the kernels are "off" or cannot be had."""
    library, _ = availability.find_library(mode)
    return nn.Momentum if library is None else functools.partial(FusedMomentum, library=library)
