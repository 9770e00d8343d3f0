"""Starts one measurement in a process of its own and waits for its answer; writes the files that it reads before."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.jobs import Job
from benchmarks.rows import FILES, OURS, PEERS, Contender, Written
from benchmarks.worker import MARK
from src.engine.data.stream import usable_cores

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = {OURS: Path(sys.executable), PEERS: ROOT / ".venv-peers" / "bin" / "python"}
LONGEST = 1800  # seconds that one process may take


class Failed(Exception):
    """A process ended without an answer; the text says why."""


def call(work: Contender | Written, folder: Path) -> dict:
    """What the function answers; its process works in `folder`, on as many cores as its job says."""
    allowed = usable_cores()[: work.job.threads or None]
    job = dataclasses.replace(work.job, threads=len(allowed), began=time.time())
    request = {"function": work.function, "options": work.options, "job": dataclasses.asdict(job)}
    settings = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    settings["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "torch-cache")  # filled in the first round, used in the others
    child = subprocess.Popen(
        [str(PYTHONS[work.environment]), "-m", "benchmarks.worker", json.dumps(request)],
        cwd=folder,
        env=settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,  # so that its own children end with it
        preexec_fn=lambda: os.sched_setaffinity(0, allowed),
    )
    try:
        output, errors = child.communicate(timeout=LONGEST)
    except subprocess.TimeoutExpired as error:
        raise Failed(f"not done after {LONGEST} s") from error
    finally:
        end(child)
    answers = [line.removeprefix(MARK) for line in output.splitlines() if line.startswith(MARK)]
    if child.returncode or not answers:
        said = (errors.strip().splitlines() or ["no message"])[-1]
        raise Failed(f"status {child.returncode}, {said}")
    return json.loads(answers[-1])


def end(child: subprocess.Popen) -> None:
    """Kill what is left of a process and its children, without which the next measurement would share its cores."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def prepare(files: tuple[str, ...], folder: Path, shrink: bool) -> None:
    """Write what is not there yet, each with what it needs itself."""
    for name in files:
        done = folder / f".{name}.done"
        if done.exists():
            continue
        written = FILES[name]
        prepare(written.needs, folder, shrink)
        print(f"writing {name}", file=sys.stderr, flush=True)
        call(dataclasses.replace(written, job=smoke(written.job)) if shrink else written, folder)
        done.touch()


def smoke(job: Job) -> Job:
    """The same job so small that it only shows whether everything runs."""
    side = 32 if job.height == 32 else 64
    small = {"batch": min(job.batch, 2), "height": side, "width": side * job.width // job.height}
    return dataclasses.replace(job, **small, images=min(job.images, 16), epochs=1, warm_up=0, calls=1, seconds=0)
