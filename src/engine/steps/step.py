"""One training step as one compiled graph: loss, gradients, optimizer, moving average."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from src.engine.steps.accumulate import accumulated
from src.engine.steps.average import average_mover, averaged, moving_average_of
from src.engine.steps.collective import mean_over_ranks
from src.engine.steps.loss_scale import DynamicScale, FixedScale, GuardedStep, Parts


def _no_scaling() -> tuple[bool, float]:
    return False, 1.0


@dataclass(frozen=True)
class TrainStep:
    """`step(lr, *inputs)` trains on one batch and returns the loss (scalar, float32); `state` is all that it changes.

    `begin(done)` is called once, with the number of steps that the run has behind it. `averaged` puts the moving
    average of the weights in their place. `scaling` tells whether the last step overflowed, and the loss scale, as
    numbers or as tensors that are read later; `skipped` how many steps overflowed and so changed nothing.
    """

    run: Callable[..., Tensor]
    state: list[Parameter]
    begin: Callable[[int], object] = int
    averaged: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext
    scaling: Callable[[], tuple[Any, Any]] = _no_scaling
    skipped: Callable[[], int] = int

    def __call__(self, lr: float, *inputs: np.ndarray) -> Tensor:
        return self.run(lr, *inputs)


@dataclass(frozen=True)
class StepOptions:
    """What a training step does beside loss, gradients and update; 0 is off."""

    loss_scale: float | DynamicScale = 1.0  # a fixed one, or one that follows what the gradients can bear
    clip_norm: float = 0.0  # largest global norm of the gradients
    ema_decay: float = 0.0  # of the moving average of the weights
    ranks: int = 1
    fuse: bool = False  # operators, where the device's compiler can
    accumulate: int = 1  # parts of a batch that are computed one after another

    @property
    def jit_level(self) -> str:
        """O1 fuses operators, in place of the old context's enable_graph_kernel; O0 is what MindSpore takes unasked."""
        return "O1" if self.fuse else "O0"


def momentum_optimizer(
    net: nn.Cell,
    momentum: float,
    weight_decay: float,
    parameters: list[Parameter] | None = None,
    kind: Callable[..., nn.Momentum] = nn.Momentum,
) -> nn.Momentum:
    """v = momentum * v + g, w -= lr * v; decay on matrices and filters only, not on BN or biases (rank 1).

    `parameters` are those to train (None: all that can be). The step sets the learning rate.
    """
    parameters = net.trainable_params() if parameters is None else parameters
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        {"order_params": parameters},
    ]
    groups = [group for group in groups if group.get("params", parameters)]
    return kind(groups, learning_rate=0.0, momentum=momentum)


def state_of(*owners: Iterable[Parameter]) -> list[Parameter]:
    """The parameters of all owners, each once: what a checkpoint has to hold for a training to go on.

    Raises ValueError where two have one name, because a checkpoint would lose one of them.
    """
    found = list({id(p): p for parameters in owners for p in parameters}.values())
    names = Counter(p.name for p in found)
    if len(names) < len(found):
        raise ValueError(f"two parameters of the training are called '{names.most_common(1)[0][0]}'")
    return found


def make_step(
    loss_fn: Callable,
    optimizer: nn.Cell,
    options: StepOptions = StepOptions(),
    weights: Iterable[Parameter] = (),
    average: ParameterTuple | None = None,
) -> TrainStep:
    """The training step of one batch, whose loss is `loss_fn(*inputs)`.

    Gradients are averaged over ranks, unscaled, clipped and applied. `weights` are all of the network, of which the
    optimizer may train a part only. `average` is a moving average that several steps share.
    """
    weights, parameters, scale = list(weights), optimizer.parameters, options.loss_scale
    if options.accumulate > 1:
        whole = replace(options, accumulate=1)

        def make_update(summed_loss: Callable) -> TrainStep:
            return make_step(summed_loss, optimizer, whole, weights, average)

        return accumulated(loss_fn, parameters, weights, options, make_update)
    if options.ema_decay and average is None:
        average = moving_average_of(parameters)
    parts = Parts(loss_fn, optimizer, average or (), [p for p in weights if not p.requires_grad])
    state = [weights, optimizer.get_parameters(), average or ()]
    made = TrainStep(_unguarded(parts, options), state_of(*state), averaged=lambda: averaged(parameters, average))
    if scale == 1.0:
        return made
    scale = scale if isinstance(scale, nn.Cell) else FixedScale(scale)
    guarded = GuardedStep(parts, scale, options)
    state = state_of(made.state, scale.state())
    return replace(made, run=guarded, state=state, scaling=guarded.scaling, skipped=guarded.skipped)


def _unguarded(parts: Parts, options: StepOptions) -> Callable[..., Tensor]:
    """The step of float32 and bfloat16, whose range is so wide that a loss needs no scale."""
    compiled = _compiled(parts, options)

    def run(lr: float, *inputs: np.ndarray) -> Tensor:
        return compiled(Tensor(lr, ms.float32), *(Tensor(array) for array in inputs))

    return run


def _compiled(parts: Parts, options: StepOptions) -> Callable[..., Tensor]:
    """One graph: (learning rate, *inputs) -> loss."""
    loss_fn, optimizer, average, _ = parts
    parameters, clip_norm = optimizer.parameters, options.clip_norm
    move_average = average_mover(optimizer, average, options.ema_decay)
    reduce = mean_over_ranks(parameters, options.ranks) if options.ranks > 1 else None
    loss_and_gradients = ms.value_and_grad(loss_fn, None, parameters)

    @ms.jit(jit_level=options.jit_level)
    def step(lr, *inputs):
        ops.assign(optimizer.learning_rate, lr)
        loss, gradients = loss_and_gradients(*inputs)
        if reduce is not None:
            gradients = reduce(gradients)
        if clip_norm > 0:
            gradients = ops.clip_by_global_norm(gradients, clip_norm)
        loss = move_average(ops.depend(loss, optimizer(gradients)))
        # An operator that comes last. The loss itself is there before the gradients are, and on CPU, reading it keeps
        # a core busy with waiting for the rest: a step of MobileNetV2 took 1.5 times as long (MindSpore 2.8.0).
        return loss * 1.0

    return step
