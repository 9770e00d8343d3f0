"""Work that one of a server's processes does while the others wait for its result.

Whoever gets the lock of the folder first does the work, so it does not matter how devices are numbered. The lock dies
with its process, the marker names the job, and both lie in the job's own folder: nothing is left over for another job.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from src.cloud.job_environment import redacted
from src.engine.errors import ZooError
from src.engine.io.files import locked

FOLDER = ".job"
PATIENCE = 1800.0  # seconds without a sign of progress after which a waiting process gives up
POLL = 0.2
HEARTBEAT_EVERY = 1.0  # seconds between two signs of progress at least
DONE, FAILED, BEGUN = "done", "failed", "begun"


def once(
    folder: Path,
    what: str,
    job: str,
    work: Callable[[Callable[[], None]], Any],
    patience: float = PATIENCE,
) -> Any:
    """The result of `work(heartbeat)`, which one process of `job` computes; has to be something that JSON can hold.

    Raises ZooError in every process where it failed in one, or where that one ended or shows no progress. An empty
    `job` is a job of one process. `heartbeat` has to be called at least every `patience` seconds.
    """
    place = folder / FOLDER
    with contextlib.ExitStack() as held:
        try:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            held.enter_context(locked(place / "lock", patiently(place / "lock", what, patience)))
        except OSError as error:
            raise ZooError(
                f"cannot write to {folder}: {error.strerror}; choose another folder for the job's data"
            ) from error
        marker = place / "marker.json"
        seen = read(marker) if job else {}
        if seen.get("job") == job:
            return result_of(seen, what)
        about = {"job": job, "pid": os.getpid()}
        write(marker, {**about, "state": BEGUN})
        try:
            result = work(heartbeat_of(place / "lock"))
        except BaseException as error:
            write(marker, {**about, "state": FAILED, "reason": redacted(str(error)) or type(error).__name__})
            raise
        write(marker, {**about, "state": DONE, "result": result})
        return result


def patiently(path: Path, what: str, patience: float) -> Callable[[], None]:
    """A pause between two looks at a lock; raises where its holder has not touched it for `patience` seconds."""
    seen, since = 0, time.monotonic()

    def pause() -> None:
        nonlocal seen, since
        now = path.stat().st_mtime_ns
        if now != seen:
            seen, since = now, time.monotonic()
        if time.monotonic() - since > patience:
            raise ZooError(f"{what} by another process shows no progress for {patience:.0f} seconds; look at its log")
        time.sleep(POLL)

    return pause


def heartbeat_of(path: Path) -> Callable[[], None]:
    """A function that touches the file, at most once in a second."""
    last = float("-inf")

    def heartbeat() -> None:
        nonlocal last
        if time.monotonic() - last > HEARTBEAT_EVERY:
            last = time.monotonic()
            os.utime(path)

    return heartbeat


def result_of(seen: dict, what: str) -> Any:
    """What another process of this job left behind."""
    if seen["state"] == DONE:
        return seen["result"]
    if seen["state"] == FAILED:
        raise ZooError(f"{what} failed in process {seen['pid']}: {seen['reason']}")
    raise ZooError(f"process {seen['pid']} ended while it was {what}; look at its log")


def read(marker: Path) -> dict:
    """The marker, {} where there is none or a process died while it wrote it."""
    try:
        found = json.loads(marker.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write(marker: Path, content: dict) -> None:
    """Only the holder of the lock writes."""
    temporary = marker.with_suffix(".tmp")
    temporary.write_text(json.dumps(content), encoding="utf-8")
    temporary.replace(marker)
