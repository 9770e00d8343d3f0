"""When quantisation begins and batch normalisation stops: a training step for each phase, compiled when it comes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Phase(NamedTuple):
    """What a training step does; see network.set_phase."""

    quantising: bool
    frozen: bool


def phase_at(step: int, quant_delay: int, freeze_bn: int) -> Phase:
    """The phase of the step after which `step` + 1 steps of the whole run are done."""
    return Phase(step >= quant_delay, step >= freeze_bn)


def phased(
    make_step: Callable[[], Callable], enter: Callable[[Phase, int], None], done: int, quant_delay: int, freeze_bn: int
) -> Callable:
    """`step(lr, *inputs)` that goes through the phases, from `done` steps on; `enter(phase, done)` sets the network up.

    Phases are compiled into the graph, so a step holds no conditions; a run has one phase unless the keys ask for more.
    """
    steps: dict[Phase, Callable] = {}

    def run(lr: float, *inputs):
        nonlocal done
        phase = phase_at(done, quant_delay, freeze_bn)
        if phase not in steps:
            enter(phase, done)
            steps[phase] = make_step()
        done += 1
        return steps[phase](lr, *inputs)

    return run
