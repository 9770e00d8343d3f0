"""The training step with the algorithms of mindspore.boost: fewer batch normalisations, frozen parameter groups."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from mindspore import Parameter, Tensor, nn
from mindspore.boost import GradientFreeze
from mindspore.boost.less_batch_normalization import LessBN

from src.engine.steps import step
from src.engine.steps.step import StepOptions, TrainStep, state_of

GROUPS, INTERVAL, SHARE_FROZEN = 10, 1, 0.7  # MindSpore's defaults: freeze now and then, not from a layer on
CUBE = 16  # centralisation leaves filters whose input channels are no multiple of this as they are


@dataclass(frozen=True)
class Boost:
    """A run of `total_steps`, whose random choices `seed` fixes, and the constants of its optimizer.

    MindSpore's levels O1 and O2 are the same here: what O2 adds (AdaSum) never runs beside frozen groups.
    """

    total_steps: int
    seed: int
    momentum: float
    weight_decay: float


class NetWithLoss(nn.Cell):
    """`loss(*inputs)` as a cell with `net` inside, because boost marks cells."""

    def __init__(self, net: nn.Cell, loss: Callable):
        super().__init__(auto_prefix=False)
        self.net = net
        self.loss = loss

    def construct(self, *inputs: Tensor) -> Tensor:
        return self.loss(*inputs)


def centralised(gradient: Tensor) -> Tensor:
    """The gradient of a filter or matrix with mean 0 over the inputs of each output (arXiv 2004.01461)."""
    if gradient.ndim > 1 and gradient.shape[1] % CUBE == 0:
        return gradient - gradient.mean(tuple(range(1, gradient.ndim)), keep_dims=True)
    return gradient


class CentralisedMomentum(nn.Momentum):
    """Momentum on centralised gradients; MindSpore's own way to the same has operators on Ascend alone."""

    def gradients_centralization(self, gradients: tuple) -> tuple:
        return self.map_(centralised, gradients)


def optimizers(net: nn.Cell, boost: Boost) -> list[nn.Momentum]:
    """One per group, each with moments of its own: the first trains all layers, each next one fewer of the first."""
    networks = {id(p) for p in net.get_parameters()}
    found = []
    for number, parameters in enumerate(freezing(boost).split_parameters_groups(net, GROUPS)):
        optimizer = step.momentum_optimizer(net, boost.momentum, boost.weight_decay, parameters, CentralisedMomentum)
        for parameter in optimizer.get_parameters():
            if id(parameter) not in networks:
                parameter.name = f"boost_{number}.{parameter.name}"
        found.append(optimizer)
    return found


def freezing(boost: Boost) -> GradientFreeze:
    return GradientFreeze(GROUPS, INTERVAL, SHARE_FROZEN, boost.total_steps)


def group_of_each_step(boost: Boost) -> list[int]:
    """Drawn from the seed, so that all ranks and a resumed run train the same group."""
    before = np.random.get_state()
    np.random.seed(boost.seed)
    try:
        return freezing(boost).generate_freeze_index_sequence(GROUPS, INTERVAL, SHARE_FROZEN, boost.total_steps)
    finally:
        np.random.set_state(before)


def make_step(net: nn.Cell, loss: Callable, options: StepOptions, boost: Boost, weights: list[Parameter]) -> TrainStep:
    """The training step; each group has a graph of its own, which is compiled when it is first trained."""
    names = [p.name for p in net.get_parameters()]
    marked = LessBN(NetWithLoss(net, loss)).set_train(True)
    for parameter, name in zip(net.get_parameters(), names):  # LessBN puts prefixes in front
        parameter.name = name

    def marked_loss(*inputs: Tensor) -> Tensor:
        return marked(*inputs)

    steps = [step.make_step(marked_loss, optimizer, options, weights) for optimizer in optimizers(net, boost)]
    alternating = Alternating(steps, group_of_each_step(boost))
    return TrainStep(
        alternating.run,
        state_of(*(one.state for one in steps)),
        alternating.begin,
        averaged=lambda: unmarked(net),
        scaling=alternating.scaling,
        skipped=lambda: sum(one.skipped() for one in steps),
    )


@contextlib.contextmanager
def unmarked(net: nn.Cell) -> Iterator[None]:
    """An evaluation has all normalisations, as eval.py has; those that training left out are the identity by 1e-5."""
    net.add_flags_recursive(less_bn=False)
    try:
        yield
    finally:
        net.add_flags_recursive(less_bn=True)


class Alternating:
    """Chooses among `steps` by the number of steps that the run has behind it."""

    def __init__(self, steps: list[TrainStep], order: list[int]):
        self.steps, self.order, self.done, self.current = steps, order, 0, steps[0]

    def begin(self, done: int) -> None:
        self.done = done

    def run(self, lr: float, *inputs: np.ndarray) -> Tensor:
        self.current = self.steps[self.order[self.done]]
        self.done += 1
        return self.current(lr, *inputs)

    def scaling(self) -> tuple[Any, Any]:
        return self.current.scaling()
