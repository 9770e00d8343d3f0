"""One training step as one compiled graph: loss, gradients, optimizer, moving average."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops
from mindspore.ops.auto_generate import SplitWithSize  # ops.split unrolls a loop and fails with 150 parts

from src.engine.io.checkpoint import EMA_PREFIX


def _no_scaling() -> tuple[bool, float]:
    return False, 1.0


@dataclass(frozen=True)
class TrainStep:
    """`step(lr, *inputs)` trains on one batch and returns the loss (scalar, float32); `state` is all that it changes.

    `begin(done)` is called once, with the number of steps that the run has behind it. `averaged` puts the moving
    average of the weights in their place. `scaling` tells whether the last step overflowed, and the loss scale.
    """

    run: Callable[..., Tensor]
    state: list[Parameter]
    begin: Callable[[int], object] = int
    averaged: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext
    scaling: Callable[[], tuple[bool, float]] = _no_scaling

    def __call__(self, lr: float, *inputs: np.ndarray) -> Tensor:
        return self.run(lr, *inputs)


@dataclass(frozen=True)
class StepOptions:
    """What a training step does beside loss, gradients and update; 0 is off."""

    loss_scale: float = 1.0  # fixed
    clip_norm: float = 0.0  # largest global norm of the gradients
    ema_decay: float = 0.0  # of the moving average of the weights
    ranks: int = 1


def momentum_optimizer(net: nn.Cell, momentum: float, weight_decay: float, lr: np.ndarray | float = 0.0) -> nn.Momentum:
    """v = momentum * v + g, w -= lr * v; decay on matrices and filters only, not on BN or biases (rank 1).

    `make_step` sets the learning rate of each step itself; `lr` is for steps that leave it to the optimizer.
    """
    parameters = net.trainable_params()
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        {"order_params": parameters},
    ]
    groups = [group for group in groups if group.get("params", parameters)]
    return nn.Momentum(groups, learning_rate=lr if isinstance(lr, float) else Tensor(lr), momentum=momentum)


def moving_average_of(parameters: list[Parameter]) -> ParameterTuple:
    """Copies of the parameters that the training step keeps as their moving average."""
    return ParameterTuple(
        [Parameter(p.value().copy(), name=EMA_PREFIX + p.name, requires_grad=False) for p in parameters]
    )


def state_of(*owners: Iterable[Parameter]) -> list[Parameter]:
    """The parameters of all owners, each once: what a checkpoint has to hold for a training to go on."""
    return list({p.name: p for parameters in owners for p in parameters}.values())


@contextlib.contextmanager
def averaged(parameters: ParameterTuple, average: ParameterTuple | None) -> Iterator[None]:
    """The moving average in place of the weights; nothing changes without one.

    Written with `assign` into the memory that compiled graphs read; they would miss values given with `set_data`.
    """
    if average is None:
        yield
        return
    raw = [p.asnumpy().copy() for p in parameters]
    for parameter, mean in zip(parameters, average):
        ops.assign(parameter, mean)
    try:
        yield
    finally:
        for parameter, value in zip(parameters, raw):
            ops.assign(parameter, Tensor(value))


def mean_over_ranks(parameters: ParameterTuple, ranks: int) -> Callable:
    """Gradients -> their means over all ranks, to be used inside a compiled step.

    On CPU they are sent as one vector, in one exchange per step instead of one per parameter; on other devices
    MindSpore's reducer bundles them by itself.
    """
    if ms.get_context("device_target") != "CPU":
        return nn.DistributedGradReducer(parameters)
    sizes = tuple(int(np.prod(p.shape)) for p in parameters)
    all_reduce, each, split = ops.AllReduce(), ops.HyperMap(), SplitWithSize()

    def flat(gradient):
        return gradient.reshape(-1)

    def like(part, gradient):
        return part.reshape(gradient.shape)

    def mean(gradients):
        total = all_reduce(ops.concat(each(flat, gradients))) / ranks
        return each(like, split(total, sizes, 0), gradients)

    return mean


def make_step(
    loss_fn: Callable,
    optimizer: nn.Optimizer,
    options: StepOptions = StepOptions(),
    weights: Iterable[Parameter] = (),
    average: ParameterTuple | None = None,
) -> TrainStep:
    """The training step of one batch, whose loss is `loss_fn(*inputs)`.

    Gradients are averaged over ranks, unscaled, clipped and applied. `weights` are all of the network, of which the
    optimizer may train a part only. `average` is a moving average that several steps share.
    """
    parameters = optimizer.parameters
    if options.ema_decay and average is None:
        average = moving_average_of(parameters)
    compiled = _compiled(loss_fn, optimizer, options, average)

    def run(lr: float, *inputs: np.ndarray) -> Tensor:
        return compiled(Tensor(lr, ms.float32), *(Tensor(array) for array in inputs))

    state = state_of(weights, optimizer.get_parameters(), average or ())
    return TrainStep(run, state, averaged=lambda: averaged(parameters, average))


def _compiled(
    loss_fn: Callable, optimizer: nn.Optimizer, options: StepOptions, average: ParameterTuple | None
) -> Callable[..., Tensor]:
    """One graph: (learning rate, *inputs) -> loss."""
    parameters = optimizer.parameters
    loss_scale, clip_norm, decay = options.loss_scale, options.clip_norm, options.ema_decay
    reduce = mean_over_ranks(parameters, options.ranks) if options.ranks > 1 else None

    def scaled_loss(*inputs):
        return loss_fn(*inputs) * loss_scale

    divide = ops.HyperMap()

    def divided(gradient):
        return gradient / loss_scale

    def unscale(gradients):
        return divide(divided, gradients)

    loss_and_gradients = ms.value_and_grad(scaled_loss, None, parameters)

    @ms.jit
    def step(lr, *inputs):
        ops.assign(optimizer.learning_rate, lr)
        loss, gradients = loss_and_gradients(*inputs)
        if reduce is not None:
            gradients = reduce(gradients)
        if loss_scale != 1.0:
            gradients = unscale(gradients)
        if clip_norm > 0:
            gradients = ops.clip_by_global_norm(gradients, clip_norm)
        loss = ops.depend(loss, optimizer(gradients))
        if average is not None:
            for mean, value in zip(average, parameters):
                loss = ops.depend(loss, ops.assign(mean, mean * decay + value * (1.0 - decay)))
        return loss / loss_scale

    return step
