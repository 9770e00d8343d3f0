"""When quantisation begins and batch normalisation stops: a training step for each phase, compiled when it comes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

NEVER = 2**62  # steps


class Phase(NamedTuple):
    """What a training step does; see network.set_phase."""

    quantising: bool
    frozen: bool  # batch normalisation
    ranges_frozen: bool = False


def phase_at(step: int, quant_delay: int, freeze_bn: int, freeze_ranges: int = NEVER) -> Phase:
    """The phase of the step after which `step` + 1 steps of the whole run are done."""
    return Phase(step >= quant_delay, step >= freeze_bn, step >= freeze_ranges)


class Phases:
    """`run(lr, *inputs)` goes through the phases; `enter(phase, done)` sets the network up for one.

    Phases are compiled into the graph, so a step holds no conditions; a run has one phase unless the keys ask for more.
    `begin(done)` says how many steps the run has behind it.
    """

    def __init__(
        self,
        make_step: Callable[[], Callable],
        enter: Callable[[Phase, int], None],
        quant_delay: int,
        freeze_bn: int,
        freeze_ranges: int = NEVER,
    ):
        self._make_step, self._enter = make_step, enter
        self._borders = quant_delay, freeze_bn, freeze_ranges
        self._steps: dict[Phase, Callable] = {}
        self._done = 0

    def begin(self, done: int) -> None:
        self._done = done

    def run(self, lr: float, *inputs: Any) -> Any:
        phase = phase_at(self._done, *self._borders)
        if phase not in self._steps:
            self._enter(phase, self._done)
            self._steps[phase] = self._make_step()
        self._done += 1
        return self._steps[phase](lr, *inputs)
