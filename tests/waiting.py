"""Waiting for what another process or thread does, with an end."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable


def wait_until(
    condition: Callable[[], object],
    what: str,
    seconds: float = 240,
    process: subprocess.Popen | None = None,
    pause: float = 0.01,
) -> None:
    """Return as soon as `condition()` is true; AssertionError after `seconds`, or when `process` has ended before.

    The process is killed then: leaving `with Popen(...)` would wait for it.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        ended = process is not None and process.poll() is not None
        if ended and condition():
            return
        if ended:
            raise AssertionError(f"{what} did not come: status {process.returncode}, {last_words(process)}")
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come in {seconds:.0f} seconds; {last_words(process)}")
        time.sleep(pause)


def last_words(process: subprocess.Popen | None) -> str:
    """What a process wrote to our pipes, after killing it."""
    if process is None:
        return ""
    process.kill()
    try:
        return str(process.communicate(timeout=10))
    except subprocess.TimeoutExpired:
        return "its children hold its pipes"
