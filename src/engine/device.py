"""Which device this process uses and which rank it has; the only reader of DEVICE_ID."""

from __future__ import annotations

import contextlib
import functools
import os

import mindspore as ms
from mindspore import communication

from src.engine import precision
from src.engine.errors import UsageError, ZooError, first_line
from src.engine.ranks import Rank


def setup(platform: str, device_id: int = 0, distribute: bool = False, dtype: str = precision.FLOAT32) -> Rank:
    """Select the device, graph mode, its precision beside `dtype` and, for `distribute`, join the other processes."""
    if platform == "CPU" and os.environ.get("MS_COMPILER_CACHE_ENABLE") == "1":
        raise UsageError(
            "MS_COMPILER_CACHE_ENABLE is 1, and on CPU MindSpore computes wrong numbers from that cache; unset it"
        )
    ms.set_context(mode=ms.GRAPH_MODE)  # the one key of the old context that has no successor
    try:
        if platform == "CPU":
            ms.set_device("CPU")
            if not distribute:
                bind_threads()
        else:
            ms.set_device(platform, environment_int("DEVICE_ID", device_id))
    except (RuntimeError, ValueError) as error:
        raise ZooError(
            f"platform {platform} is not usable here: {first_line(error)} Choose another --platform"
        ) from error
    precision.set_device(platform, dtype)
    if not distribute:
        return Rank()
    try:
        communication.init()
    except (RuntimeError, ValueError) as error:
        raise ZooError(
            f"run_distribute is True and this process cannot join a cluster ({first_line(error)}); "
            "start it with scripts/run_train.sh or python -m src.launch, or leave run_distribute out"
        ) from error
    # No parallel mode: it would only tell MindSpore's own gradient reducer what steps/collective.py says itself.
    return Rank(communication.get_rank(), communication.get_group_size())


@functools.cache
def bind_threads() -> None:
    """Threads that stay on their core: up to twice the speed.

    MindSpore refuses when it is asked twice, or after it has computed something; then it is only slower.
    """
    with contextlib.suppress(RuntimeError):
        ms.runtime.set_cpu_affinity(True)


def environment_int(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    if not text:
        return default
    if not text.isdigit():
        raise UsageError(f"environment variable {name} is {text!r}; it has to be a whole number")
    return int(text)
