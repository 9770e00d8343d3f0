"""Profile a few training steps with MindSpore's profiler."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

FIRST, LAST = 3, 7  # steps that are profiled; the ones before compile and warm up
FOLDER = "profile"


def profiled(step: Callable, folder: Path, say: Callable[[str], None]) -> Callable:
    """The same step, whose calls FIRST to LAST are recorded under `folder`/profile."""
    from mindspore import Profiler

    state = {"calls": 0, "profiler": None}

    def run(*arguments):
        state["calls"] += 1
        if state["calls"] == FIRST:
            state["profiler"] = Profiler(output_path=str(folder / FOLDER))
        result = step(*arguments)
        if state["calls"] == LAST:
            result.asnumpy()
            state["profiler"].analyse()
            say(
                f"profile of steps {FIRST} to {LAST} in {folder / FOLDER}: cpu_op_type_info_0.csv sums the time per "
                "operator, trace_view.json opens in chrome://tracing or https://ui.perfetto.dev"
            )
        return result

    return run
