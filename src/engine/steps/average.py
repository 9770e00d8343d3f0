"""The moving average of the weights: made, moved in a compiled step, and put in the weights' place."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from src.engine.io.checkpoint import EMA_PREFIX


def moving_average_of(parameters: list[Parameter]) -> ParameterTuple:
    """Copies of the parameters that the training step keeps as their moving average."""
    return ParameterTuple(
        [Parameter(p.value().copy(), name=EMA_PREFIX + p.name, requires_grad=False) for p in parameters]
    )


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


def average_mover(optimizer: nn.Cell, average: Sequence[Parameter], decay: float) -> Callable[[Tensor], Tensor]:
    """A function for a compiled step: x -> x, once the averages have moved towards the weights.

    An optimizer that can do so faster brings its own, also called average_mover.
    """
    if average and hasattr(optimizer, "average_mover"):
        return optimizer.average_mover(average, decay)
    parameters = optimizer.parameters

    def moved(x):
        for mean, value in zip(average, parameters):
            x = ops.depend(x, ops.assign(mean, mean * decay + value * (1.0 - decay)))
        return x

    return moved
