"""A training step for float16: the loss is scaled up, and the scale follows what the gradients can bear."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from src.engine.steps.step import StepOptions, TrainStep, mean_over_ranks, state_of

FIRST_SCALE, FACTOR, WINDOW = 2.0**14, 2.0, 1000


class DynamicScale(nn.Cell):
    """The loss scale: halved (down to 1) by a step whose gradients overflow, doubled after WINDOW steps without one."""

    def __init__(self, first: float = FIRST_SCALE, window: int = WINDOW):
        super().__init__(auto_prefix=False)
        self.scale = Parameter(Tensor(np.float32(first)), name="loss_scale", requires_grad=False)
        self.good_steps = Parameter(Tensor(np.float32(0)), name="loss_scale_good_steps", requires_grad=False)
        self.window = window

    def construct(self, finite: Tensor) -> Tensor:
        """`finite` (scalar bool) says whether the gradients of this step were; returns the next scale."""
        good = ops.select(finite, self.good_steps + 1.0, ops.zeros_like(self.good_steps))
        grows = good >= self.window
        lower = ops.maximum(self.scale / FACTOR, 1.0)
        scale = ops.select(finite, ops.select(grows, self.scale * FACTOR, self.scale * 1.0), lower)
        scale = ops.depend(scale, ops.assign(self.good_steps, ops.select(grows, ops.zeros_like(good), good)))
        return ops.depend(scale, ops.assign(self.scale, scale))


def make_step(
    loss_fn: Callable, optimizer: nn.Cell, scale: DynamicScale, options: StepOptions, weights: Iterable[Parameter]
) -> TrainStep:
    """The training step with a dynamic loss scale; `weights` are all of the network."""
    step = MixedStep(loss_fn, optimizer, scale, options.clip_norm, options.ranks)
    state = state_of(weights, optimizer.get_parameters(), scale.get_parameters())
    return TrainStep(step, state, scaling=lambda: (step.overflow, step.loss_scale))


class MixedStep:
    """`step(lr, *inputs)` trains on one batch and returns the loss (scalar, float32).

    A step whose gradients overflow changes nothing but the scale; while the scale can still be lowered, it returns the
    loss of the step before. `overflow` and `loss_scale` tell about the last step.
    """

    def __init__(
        self,
        loss_fn: Callable,
        optimizer: nn.Cell,
        scale: DynamicScale,
        clip_norm: float = 0.0,
        ranks: int = 1,
    ):
        self.overflow, self.loss_scale = False, FIRST_SCALE
        self._last = Tensor(np.float32(0))
        self._step = compiled_step(loss_fn, optimizer, scale, clip_norm, ranks)

    def __call__(self, lr: float, *inputs: np.ndarray) -> Tensor:
        loss, finite, scale = self._step(Tensor(lr, ms.float32), *(Tensor(array) for array in inputs))
        self.overflow, self.loss_scale = not bool(finite.asnumpy()), float(scale.asnumpy())
        if not self.overflow or (self.loss_scale <= 1.0 and not math.isfinite(float(loss.asnumpy()))):
            self._last = loss
        return self._last


def compiled_step(loss_fn: Callable, optimizer: nn.Cell, scale: DynamicScale, clip_norm: float, ranks: int) -> Callable:
    """`step(lr, *inputs)` -> loss, whether the gradients were finite (on all ranks), next scale; one graph."""
    parameters = optimizer.parameters
    reduce = mean_over_ranks(parameters, ranks) if ranks > 1 else None
    apply = ops.HyperMap()

    def scaled_loss(factor, *inputs):
        return loss_fn(*inputs) * factor

    def is_finite(gradient):
        return ops.isfinite(gradient).all()

    loss_and_gradients = ms.value_and_grad(scaled_loss, None, parameters)

    @ms.jit
    def step(lr, *inputs):
        factor = scale.scale * 1.0
        ops.assign(optimizer.learning_rate, lr)
        loss, gradients = loss_and_gradients(factor, *inputs)
        if reduce is not None:
            gradients = reduce(gradients)  # an overflow of one rank reaches all with the sum
        gradients = apply(ops.partial(ops.mul, 1.0 / factor), gradients)
        finite = ops.stack(apply(is_finite, gradients)).all()
        if clip_norm > 0:
            gradients = ops.clip_by_global_norm(gradients, clip_norm)
        if finite:
            loss = ops.depend(loss, optimizer(gradients))
        return loss / factor, finite, scale(finite)

    return step
