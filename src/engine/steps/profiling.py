"""Profile a few training steps with MindSpore's profiler."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

FIRST, LAST = 3, 7  # steps that are profiled; the ones before compile and warm up
FOLDER = "profile"


def profiled(step: Callable, folder: Path, say: Callable[[str], None]) -> Callable:
    """The same step, whose calls FIRST to LAST are recorded under `folder`/profile."""
    from mindspore import Profiler

    calls, profiler = 0, None

    def run(*arguments: Any) -> Any:
        nonlocal calls, profiler
        calls += 1
        if calls == FIRST:
            profiler = Profiler(output_path=str(folder / FOLDER))
        result = step(*arguments)
        if calls == LAST and profiler is not None:
            result.asnumpy()
            profiler.analyse()
            say(
                f"profile of steps {FIRST} to {LAST} in {folder / FOLDER}: cpu_op_type_info_0.csv sums the time per "
                "operator, trace_view.json opens in chrome://tracing or https://ui.perfetto.dev"
            )
        return result

    return run
