"""Start the ranks of a plan, show the first one's log, end with the status of the first that fails. No MindSpore."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TextIO

import psutil

from src.engine.errors import ZooError
from src.engine.io import files
from src.launch import rank as rank_process
from src.launch.plan import RANK_SCRIPT, LaunchPlan, with_plan_file

PR_SET_CHILD_SUBREAPER = 36
GRACE = 15.0  # seconds that the other ranks get to save and end once one has failed or a signal came
LINGER = 5.0  # seconds that msrun or mpirun gets to end once every rank has
SAME_SIGNAL = 1.0  # seconds within which a signal that comes twice (to us, and to our group) means once
TAIL = 20  # log lines that are shown of a rank that failed


class Follower:
    """Copies what is appended to a file to standard output, for as long as somebody reads it."""

    def __init__(self, path: Path):
        self._path, self._position = path, 0

    def copy(self) -> None:
        with contextlib.suppress(FileNotFoundError), self._path.open("rb") as handle:
            handle.seek(self._position)
            data = handle.read()
            self._position += len(data)
            try:
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
            except BrokenPipeError:  # `| head` has seen enough, which is no reason to stop the training
                discard(sys.stdout)


def discard(stream: TextIO) -> None:
    """Send what follows nowhere, also what Python still holds: failing to write that would change the exit status."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


class Asked:
    """Remembers SIGINT and SIGTERM; `count` says how often one came, others within a second not counted."""

    def __enter__(self) -> Asked:
        self.number, self.count, self._last = 0, 0, float("-inf")
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - self._last > SAME_SIGNAL:
            self.number, self.count, self._last = number, self.count + 1, now

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def run(plan: LaunchPlan) -> int:
    """Run every rank of this node to its end; returns 0, or the status of the first rank that failed."""
    with contextlib.suppress(OSError, AttributeError):  # Linux: orphans of a dead msrun become ours, so we can end them
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with contextlib.ExitStack() as logs:
        for one in plan.ranks:
            logs.enter_context(new_log(Path(one.log)))
        asked = logs.enter_context(Asked())
        folder = Path(logs.enter_context(tempfile.TemporaryDirectory(prefix="launch-")))
        try:
            return watch(plan, folder, start(plan, folder), asked)
        finally:
            end_all()


@contextlib.contextmanager
def new_log(path: Path) -> Iterator[None]:
    """Make an empty log and hold its lock; the log of an earlier run gets a number."""

    def refuse() -> None:
        raise ZooError(f"another run is writing {path}; wait for its end or start in another folder")

    with contextlib.ExitStack() as held:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                # the log of another user cannot be locked, but moved where the folder is ours
                with contextlib.suppress(PermissionError), files.locked(path, refuse):
                    pass
                number = 1
                while path.with_name(f"{path.name}.{number}").exists():
                    number += 1
                path.rename(path.with_name(f"{path.name}.{number}"))
            held.enter_context(files.locked(path, refuse))
        except OSError as error:
            raise ZooError(f"cannot write {path}: {error.strerror}; start in a folder that can be written") from error
        yield


def start(plan: LaunchPlan, folder: Path) -> list[subprocess.Popen]:
    """Start the ranks, or the framework's launcher that starts them; each in a session of its own.

    So Ctrl-C on the terminal reaches only this process, which passes it on once.
    """
    path = folder / "plan.json"
    path.write_text(json.dumps(plan.as_rows()), encoding="utf-8")
    if plan.starter:
        commands = [list(with_plan_file(plan, str(path)).starter)]
    else:
        commands = [[sys.executable, str(RANK_SCRIPT), str(path), str(one.local_rank)] for one in plan.ranks]
    python_folder = str(Path(sys.executable).parent)
    env = {**os.environ, "PATH": os.pathsep.join((python_folder, os.environ.get("PATH", "")))}
    env["LAUNCH_ID"] = folder.name  # by which the ranks of this launch know each other before they have joined
    env.pop("RANK_TABLE_FILE", None)  # the plan sets it where it is wanted; msrun and mpirun refuse it
    program = shutil.which(commands[0][0], path=env["PATH"])
    if program is None:
        remedy = "install Open MPI or use --engine msrun" if commands[0][0] == "mpirun" else "install MindSpore"
        raise ZooError(f"{commands[0][0]} is not installed; {remedy}")
    output = (folder / "starter.log").open("wb")
    with output:
        return [
            subprocess.Popen(
                [program, *command[1:]],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=rank_process.child_of(os.getpid()),
            )
            for command in commands
        ]


def statuses(plan: LaunchPlan, folder: Path) -> dict[int, tuple[int, float]]:
    """Local rank -> (exit status, time of its end) of the ranks that have ended."""
    found = {}
    for one in plan.ranks:
        with contextlib.suppress(FileNotFoundError):
            status, when = (folder / f"rank{one.local_rank}.status").read_text().split()
            found[one.local_rank] = int(status), float(when)
    return found


def first_failure(ended: dict[int, tuple[int, float]]) -> int | None:
    """The local rank that failed before all others."""
    failed = {rank: when for rank, (status, when) in ended.items() if status}
    return min(failed, key=failed.__getitem__) if failed else None


def watch(plan: LaunchPlan, folder: Path, started: list[subprocess.Popen], asked: Asked) -> int:
    """Follow the first log until everything has ended; stop all where one fails or a signal asks for it."""
    follower = Follower(Path(plan.ranks[0].log))
    deadline, sent = float("inf"), 0
    told: set[int] = set()
    while True:
        follower.copy()
        running = [process for process in started if process.poll() is None]
        ended = statuses(plan, folder)
        failed = first_failure(ended)
        now = time.monotonic()
        if asked.count > 1:
            break
        if asked.number and not sent:
            sent, deadline = asked.number, now + rank_process.PATIENCE
        elif (failed is not None or any(p.returncode for p in started)) and not sent:
            sent, deadline = signal.SIGTERM, now + GRACE
        if sent:
            told |= tell(plan, folder, told | set(ended), sent)
        if len(ended) == len(plan.ranks):
            deadline = min(deadline, now + LINGER)
        if not running or now > deadline:
            break
        time.sleep(rank_process.POLL)
    end_all()
    follower.copy()
    return report(plan, folder, started, asked)


def tell(plan: LaunchPlan, folder: Path, done: set[int], number: int) -> set[int]:
    """Send a signal to the ranks that are not `done`; returns those it reached, for some may not have started yet."""
    reached = set()
    for one in plan.ranks:
        if one.local_rank not in done:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                os.kill(int((folder / f"rank{one.local_rank}.pid").read_text()), number)
                reached.add(one.local_rank)
    return reached


def end_all() -> None:
    """Kill what is left of our descendants; orphans among them have become our children."""
    while left := psutil.Process().children(recursive=True):  # again, for one may have started another meanwhile
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=1)


def report(plan: LaunchPlan, folder: Path, started: list[subprocess.Popen], asked: Asked) -> int:
    """Say which rank failed, with its last lines, on standard error and in the first log; returns the exit status."""
    ended = statuses(plan, folder)
    failed = first_failure(ended)
    if failed is not None:
        status = ended[failed][0]
        one = next(one for one in plan.ranks if one.local_rank == failed)
        lines = [f"rank {one.rank} {how_it_ended(status)}; its log is {one.log}"]
        if one is not plan.ranks[0]:
            lines += Path(one.log).read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL:]
    elif len(ended) == len(plan.ranks):
        return 0
    else:
        status = 128 + asked.number if asked.number else next((p.returncode for p in started if p.poll()), 1)
        status = status if status > 0 else 128 - status
        lines = [f"{len(plan.ranks) - len(ended)} of {len(plan.ranks)} ranks did not end by themselves"]
        text = (folder / "starter.log").read_text(encoding="utf-8", errors="replace")
        lines += text.splitlines()[-TAIL:]
    if plan.world > 1 or len(ended) < len(plan.ranks):
        text = "\n".join(["error: " + lines[0], *lines[1:]]) + "\n"
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except BrokenPipeError:
            discard(sys.stderr)
        with contextlib.suppress(OSError), Path(plan.ranks[0].log).open("a", encoding="utf-8") as log:
            log.write(text)
    return status


def how_it_ended(status: int) -> str:
    if status - 128 in set(signal.Signals):
        return f"was ended by {signal.Signals(status - 128).name}"
    return f"failed with status {status}"
