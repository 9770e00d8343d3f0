"""A training step with a scaled loss, for float16: one that overflows changes nothing but the scale."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops
from mindspore.ops.auto_generate import SplitWithSize  # ops.split unrolls a loop and fails with 150 parts

from src.engine.steps.average import average_mover
from src.engine.steps.collective import mean_over_ranks

FIRST_SCALE, FACTOR, WINDOW = 2.0**14, 2.0, 1000


def number(value: float, name: str) -> Parameter:
    """A float32 scalar that a step may change."""
    return Parameter(Tensor(np.float32(value)), name=name, requires_grad=False)


class FixedScale(nn.Cell):
    """A loss scale that stays as it is; a loss that is not finite is told, because no other scale would help."""

    def __init__(self, scale: float):
        super().__init__(auto_prefix=False)
        self.scale = Tensor(np.float32(scale))

    def state(self) -> list[Parameter]:
        """What a checkpoint has to hold."""
        return []

    def construct(self, loss: Tensor, finite: Tensor) -> tuple[Tensor, Tensor]:
        return loss, self.scale


class DynamicScale(nn.Cell):
    """The loss scale: halved (down to 1) by a step that overflows, doubled after WINDOW steps without one."""

    def __init__(self, first: float = FIRST_SCALE, window: int = WINDOW):
        super().__init__(auto_prefix=False)
        self.scale = number(first, "loss_scale")
        self.good_steps = number(0, "loss_scale_good_steps")
        self.last_loss = number(0, "loss_scale_last_loss")
        self.window = window

    def state(self) -> list[Parameter]:
        """What a checkpoint has to hold."""
        return [self.scale, self.good_steps]

    def construct(self, loss: Tensor, finite: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of a step and whether it was finite -> the loss to tell, and the next scale.

        While the scale can still be lowered, that is the loss of the last step that did not overflow.
        """
        good = ops.select(finite, self.good_steps + 1.0, ops.zeros_like(self.good_steps))
        grows = good >= self.window
        lower = ops.maximum(self.scale / FACTOR, 1.0)
        scale = ops.select(finite, ops.select(grows, self.scale * FACTOR, self.scale * 1.0), lower)
        is_told = ops.logical_or(finite, ops.logical_and(scale <= 1.0, ops.logical_not(ops.isfinite(loss))))
        told = ops.select(is_told, loss, self.last_loss * 1.0)
        scale = ops.depend(scale, ops.assign(self.good_steps, ops.select(grows, ops.zeros_like(good), good)))
        told = ops.depend(told, ops.assign(self.last_loss, told))
        return told, ops.depend(scale, ops.assign(self.scale, scale))


class Parts(NamedTuple):
    """What a step is made of. `untrained` are the parameters that the forward pass may change by itself.

    `average` holds the moving average of each parameter of `optimizer`, or nothing.
    """

    loss_fn: Callable[..., Tensor]
    optimizer: nn.Cell
    average: Sequence[Parameter]
    untrained: Sequence[Parameter]


class GuardedStep:
    """`step(lr, *inputs)` trains on one batch and returns the loss (scalar, float32); `scaling` tells how it went.

    A step whose gradients, or whose statistics of the batch, are not finite on some rank leaves weights, optimizer,
    average and untrained parameters as they were. Nothing here waits for the device.
    """

    def __init__(self, parts: Parts, scale: nn.Cell, options: Any):
        self._skipped = number(0, "skipped_steps")
        self._compiled = compiled_step(parts, scale, options, self._skipped)
        self._overflow, self._first, self._scale = Tensor(False), scale.scale, None

    def __call__(self, lr: float, *inputs: np.ndarray) -> Tensor:
        arguments = Tensor(lr, ms.float32), *(Tensor(array) for array in inputs)
        loss, self._overflow, self._scale = self._compiled(*arguments)
        return loss

    def scaling(self) -> tuple[Tensor, Tensor]:
        """Whether the last step overflowed, and the scale of the next one; reading the tensors waits for the step."""
        if self._scale is None:  # a copy, because a function that takes it would be compiled anew after a Parameter
            return self._overflow, Tensor(self._first.asnumpy())
        return self._overflow, self._scale

    def skipped(self) -> int:
        """How many steps of this process have overflowed."""
        return int(self._skipped.asnumpy())


class Guard:
    """Three functions for a compiled step that keep the parameters `untrained` (float32) as they were before it.

    `kept(x)` returns x and the present values, so that what is computed from x comes after they are copied.
    `marked(gradients)` are the same gradients if all `untrained` are finite, else not: an activation that overflows can
    end in a mean that is infinite while ReLU6 hides it from the loss. As part of the gradients, ranks share it.
    `put_back(x, values)` returns x and writes the values.
    """

    def __init__(self, untrained: Sequence[Parameter]):
        if any(p.dtype != ms.float32 for p in untrained):
            raise ValueError("a step that overflows can put back float32 parameters only")
        parameters, sizes = ParameterTuple(untrained), tuple(int(p.size) for p in untrained)
        split, good, bad = SplitWithSize(), Tensor(np.float32(0)), Tensor(np.float32(np.nan))

        def joined():
            parts = ()  # type: tuple  # as a comment: graph mode compiles no annotation
            for parameter in parameters:
                parts = (*parts, parameter.reshape(-1))
            return ops.concat(parts)

        def kept(x):
            values = joined()
            return ops.depend(x, values), values

        def marked(gradients):
            mark = ops.select(ops.isfinite(joined()).all(), good, bad)
            return (gradients[0] + mark, *gradients[1:])

        def put_back(x, values):
            for parameter, part in zip(parameters, split(values, sizes, 0)):
                x = ops.depend(x, ops.assign(parameter, part.reshape(parameter.shape)))
            return x

        self.kept, self.marked, self.put_back = kept, marked, put_back


def compiled_step(parts: Parts, scale: nn.Cell, options: Any, skipped: Parameter) -> Callable:
    """`step(lr, *inputs)` -> loss, whether the step overflowed (on any rank), next scale; one graph.

    It counts in `skipped` the steps that were not.
    """
    loss_fn, optimizer, average, untrained = parts
    parameters, clip_norm = optimizer.parameters, options.clip_norm
    move_average = average_mover(optimizer, average, options.ema_decay)
    reduce = mean_over_ranks(parameters, options.ranks) if options.ranks > 1 else None
    has_untrained = len(untrained) > 0
    guard = Guard(untrained)
    kept, marked, put_back = guard.kept, guard.marked, guard.put_back
    apply = ops.HyperMap()

    def scaled_loss(factor, *inputs):
        return loss_fn(*inputs) * factor

    def is_finite(gradient):
        return ops.isfinite(gradient).all()

    loss_and_gradients = ms.value_and_grad(scaled_loss, None, parameters)

    @ms.jit(jit_level=options.jit_level)
    def step(lr, first, *others):
        factor, before = scale.scale * 1.0, None
        if has_untrained:
            first, before = kept(first)
        loss, gradients = loss_and_gradients(factor, first, *others)
        if has_untrained:
            gradients = marked(gradients)
        if reduce is not None:
            gradients = reduce(gradients)  # what one rank has that is not finite reaches all with the sum
        gradients = apply(ops.partial(ops.mul, 1.0 / factor), gradients)
        finite = ops.stack(apply(is_finite, gradients)).all()
        if clip_norm > 0:
            gradients = ops.clip_by_global_norm(gradients, clip_norm)
        if finite:
            ops.assign(optimizer.learning_rate, lr)
            loss = move_average(ops.depend(loss, optimizer(gradients)))
        else:
            loss = ops.depend(loss, ops.assign(skipped, skipped + 1.0))
            if has_untrained:
                loss = put_back(loss, before)
        told, following = scale(loss / factor, finite)
        return told, ops.logical_not(finite), following

    return step
