"""One training step from several parts of a batch, for batches that do not fit into memory at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops


class Carried(nn.Cell):
    """(loss, parameter, gradient) -> loss, whose gradient for the parameter is `gradient`.

    So what follows gradients in a step (mean over ranks, clipping, overflow, update, moving average) is the same code
    for gradients that were summed before.
    """

    def construct(self, loss: Tensor, parameter: Tensor, gradient: Tensor) -> Tensor:
        return loss

    def bprop(self, loss, parameter, gradient, out, dout):  # as MindSpore wants it
        return dout, gradient * dout, ops.zeros_like(gradient)


def copies(parameters: list[Parameter], prefix: str) -> ParameterTuple:
    """Zeros of the same shapes that no checkpoint holds, because they mean nothing between two steps."""
    return ParameterTuple(
        Parameter(Tensor(np.zeros(p.shape, np.float32)), name=f"{prefix}.{p.name}", requires_grad=False)
        for p in parameters
    )


@dataclass(frozen=True)
class Accumulated:
    """`step(lr, *inputs)`: the mean of the gradients of `parts` equal parts of a batch, then one `update`.

    Every input has the batch as its first side. A loss that is a mean over images gives the gradients of the whole
    batch, but that batch normalisation sees a part at a time. An update that overflows puts back what the parts have
    changed.
    """

    parts: int
    begin: Callable[[], Tensor]
    add: Callable[..., Tensor]  # (loss scale, *inputs of a part) -> loss
    update: Any  # a TrainStep whose input is the loss
    end: Callable[[Tensor], Tensor] | None  # (whether the update overflowed)

    def __call__(self, lr: float, *inputs: np.ndarray) -> Tensor:
        self.begin()
        _, scale = self.update.scaling()
        factor = scale if isinstance(scale, Tensor) else Tensor(scale, ms.float32)
        size = len(inputs[0]) // self.parts
        losses = [
            self.add(factor, *(Tensor(array[part * size : (part + 1) * size]) for array in inputs))
            for part in range(self.parts)
        ]
        loss = self.update(lr, sum(losses[1:], losses[0]) / self.parts)
        if self.end is not None:
            self.end(self.update.scaling()[0])
        return loss


def accumulated(
    loss_fn: Callable, parameters: ParameterTuple, weights: list[Parameter], options: Any, make_update: Callable
) -> Any:
    """The TrainStep of `options.accumulate` parts; `make_update(loss function)` gives what follows the gradients."""
    parts = options.accumulate
    sums = copies(list(parameters), "sum")
    untrained = ParameterTuple([p for p in weights if not p.requires_grad])
    before = copies(list(untrained), "before")
    carried = Carried()

    def summed_loss(loss: Tensor) -> Tensor:
        for parameter, gradient in zip(parameters, sums):
            loss = carried(loss, parameter, gradient)
        return loss

    update = make_update(summed_loss)
    guards = isinstance(update.scaling()[0], Tensor) and len(untrained) > 0
    run = Accumulated(parts, _begin(sums, untrained, before, guards), _add(loss_fn, parameters, sums, options),
                      update, _end(untrained, before) if guards else None)  # fmt: skip
    return replace(update, run=run)


def _begin(sums: ParameterTuple, untrained: ParameterTuple, before: ParameterTuple, guards: bool) -> Callable:
    zero = Tensor(np.float32(0))

    @ms.jit
    def begin():
        done = zero
        for total in sums:
            done = ops.depend(done, ops.assign(total, ops.zeros_like(total)))
        if guards:
            for copy, parameter in zip(before, untrained):
                done = ops.depend(done, ops.assign(copy, parameter))
        return done * 1.0

    return begin


def _add(loss_fn: Callable, parameters: ParameterTuple, sums: ParameterTuple, options: Any) -> Callable:
    parts = options.accumulate

    def scaled_loss(factor, *inputs):
        return loss_fn(*inputs) * factor

    loss_and_gradients = ms.value_and_grad(scaled_loss, None, parameters)

    @ms.jit(jit_level=options.jit_level)
    def add(factor, *inputs):
        loss, gradients = loss_and_gradients(factor, *inputs)
        share = 1.0 / (factor * parts)
        for total, gradient in zip(sums, gradients):
            loss = ops.depend(loss, ops.assign(total, total + gradient * share))
        return loss / factor

    return add


def _end(untrained: ParameterTuple, before: ParameterTuple) -> Callable[[Tensor], Tensor]:
    @ms.jit
    def end(overflow):
        done = overflow
        for parameter, value in zip(untrained, before):
            done = ops.depend(done, ops.assign(parameter, ops.select(overflow, value, parameter)))
        return ops.logical_not(done)

    return end
