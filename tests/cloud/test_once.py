"""One process of a server works, the others get its result; nothing waits for ever, nothing is left over."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from src.cloud import once as module
from src.cloud.job_environment import process
from src.cloud.once import once
from src.engine.errors import ZooError
from tests.conftest import ROOT
from tests.object_storage import SECRET
from tests.waiting import wait_until

PROCESS = """
import os, sys, time
from pathlib import Path
from src.cloud.once import once
from src.engine.errors import ZooError
folder, job, how, patience = Path(sys.argv[1]), sys.argv[2], sys.argv[3], float(sys.argv[4])

def work(heartbeat):
    (folder / f"worker-{os.getpid()}").touch()
    if how == "fails":
        raise ZooError("the bucket is empty")
    if how == "hangs":
        time.sleep(60)
    for _ in range(5):
        time.sleep(0.1)
        heartbeat()
    return {"root": "/data/ä"}

try:
    print(once(folder, "copying", job, work, patience))
except ZooError as error:
    sys.exit(f"error: {error}")
"""


@pytest.fixture
def start(tmp_path):
    """Start processes that share a folder; they are gone when the test ends."""
    started = []

    def start(count: int, job: str = "job 1", how: str = "works", patience: float = 30) -> list[subprocess.Popen]:
        new = [
            subprocess.Popen(
                [sys.executable, "-c", PROCESS, str(tmp_path), job, how, str(patience)],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(count)
        ]
        started.extend(new)
        return new

    yield start
    for one in started:
        one.kill()
        one.communicate()


def ends(processes) -> list[tuple[int, str]]:
    """(status, last line) of each."""
    outputs = [one.communicate(timeout=60) for one in processes]
    return [(one.returncode, (out + err).strip()) for one, (out, err) in zip(processes, outputs)]


def workers(folder) -> int:
    return len(list(folder.glob("worker-*")))


def test_one_works_and_all_have_its_result(start, tmp_path):
    assert ends(start(4)) == [(0, "{'root': '/data/ä'}")] * 4
    assert workers(tmp_path) == 1
    assert oct((tmp_path / module.FOLDER).stat().st_mode)[-3:] == "700"


def test_another_job_does_not_trust_the_marker_of_an_earlier_one(start, tmp_path):
    ends(start(2, "job 1"))
    ends(start(2, "job 2"))
    assert workers(tmp_path) == 2


def test_the_failure_of_one_ends_all_with_its_reason(start, tmp_path):
    found = ends(start(3, how="fails"))
    assert workers(tmp_path) == 1
    assert sorted(text.split(" in process")[0] for _, text in found) == [
        "error: copying failed", "error: copying failed", "error: the bucket is empty",
    ]  # fmt: skip
    assert {status for status, _ in found} == {1}


def test_the_death_of_one_ends_all(start, tmp_path):
    processes = start(3, how="hangs")
    wait_until(lambda: workers(tmp_path), "a worker", seconds=60)
    pid = int(next(tmp_path.glob("worker-*")).name.partition("-")[2])
    os.kill(pid, signal.SIGKILL)
    found = ends(processes)
    assert sorted(status for status, _ in found) == [-9, 1, 1]
    assert all(f"process {pid} ended while it was copying" in text for status, text in found if status == 1)


def test_no_progress_ends_those_that_wait(start, tmp_path):
    processes = start(2, how="hangs", patience=1)
    wait_until(lambda: any(one.poll() is not None for one in processes), "the end of one", seconds=50)
    gave_up = next(one for one in processes if one.poll() is not None)
    assert "shows no progress for 1 seconds" in gave_up.communicate()[1]


@pytest.fixture
def clock(monkeypatch):
    """once.py's clocks: the wall clock jumps or stands still, the monotonic one goes on by `pace` seconds a look."""
    made = SimpleNamespace(wall=itertools.count(0.0, 1e9), pace=0.0, now=0.0)

    def monotonic() -> float:
        made.now += made.pace
        return made.now

    clocks = SimpleNamespace(time=lambda: next(made.wall), monotonic=monotonic, sleep=time.sleep)
    monkeypatch.setattr(module, "time", clocks)
    monkeypatch.setattr(module, "POLL", 0.001)
    return made


@pytest.fixture
def waiting(tmp_path, monkeypatch):
    """A call of once() that waits for another one's lock; `refused` grows with every look at it, `finish` ends that."""
    made, flock = SimpleNamespace(refused=[], finish=threading.Event()), fcntl.flock
    entered, path = threading.Event(), tmp_path / module.FOLDER / "lock"

    def look(lock, how):
        try:
            flock(lock, how)
        except BlockingIOError:
            made.refused.append(1)
            if made.beats:  # of a holder whose clock goes back
                earlier = path.stat().st_mtime_ns - 10**12
                os.utime(path, ns=(earlier, earlier))
            raise

    def hold(heartbeat):
        entered.set()
        assert made.finish.wait(120)
        return 5

    def begin(patience: float, beats: bool) -> Future:
        made.beats = beats
        pool.submit(once, tmp_path, "copying", "j", hold)
        assert entered.wait(60)
        return pool.submit(once, tmp_path, "copying", "j", lambda heartbeat: 6, patience)

    made.begin = begin
    monkeypatch.setattr(fcntl, "flock", look)
    with ThreadPoolExecutor(2) as pool:
        yield made
        made.finish.set()


def test_a_wall_clock_that_jumps_is_no_timeout(waiting, clock):
    result = waiting.begin(patience=100.0, beats=False)
    wait_until(lambda: len(waiting.refused) > 20 or result.done(), "twenty looks at the lock", seconds=60)
    waiting.finish.set()
    assert result.result(60) == 5


def test_a_wall_clock_that_stands_still_does_not_make_it_wait_for_ever(waiting, clock):
    clock.wall, clock.pace = itertools.repeat(0.0), 1.0
    result = waiting.begin(patience=100.0, beats=False)
    wait_until(result.done, "the end of the patience", seconds=60)
    with pytest.raises(ZooError, match="shows no progress for 100 seconds"):
        result.result()


def test_a_beat_counts_also_where_the_clock_goes_back(waiting, clock, tmp_path):
    clock.pace = 1.0
    result = waiting.begin(patience=10.0, beats=True)
    wait_until(lambda: len(waiting.refused) > 50 or result.done(), "fifty looks at the lock", seconds=60)
    waiting.finish.set()
    assert result.result(60) == 5


def test_beats_go_on_when_the_clock_has_gone_back(clock, tmp_path):
    clock.wall, clock.pace = itertools.chain([1e9], itertools.repeat(0.0)), 2.0
    heartbeat = module.heartbeat_of(tmp_path)
    for _ in range(3):
        os.utime(tmp_path, (0, 0))
        heartbeat()
        assert tmp_path.stat().st_mtime > 0


def test_the_reason_of_a_failure_holds_no_credentials(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET_ACCESS_KEY", SECRET)

    def fail(heartbeat):
        raise OSError(f"denied for {SECRET}")

    with pytest.raises(OSError):
        once(tmp_path, "copying", "j", fail)
    assert SECRET not in (tmp_path / module.FOLDER / "marker.json").read_text()
    with pytest.raises(ZooError, match=r"copying failed in process \d+: denied for \*\*\*"):
        once(tmp_path, "copying", "j", fail)


def test_a_damaged_marker_counts_as_none(tmp_path):
    (tmp_path / module.FOLDER).mkdir()
    for content in ("", "{", "[]", "null", json.dumps({"job": "j2"})):
        (tmp_path / module.FOLDER / "marker.json").write_text(content)
        assert once(tmp_path, "copying", "j", lambda heartbeat: 7) == 7


def test_a_job_of_one_process_always_works(tmp_path):
    results = iter((1, 2))
    assert [once(tmp_path, "copying", "", lambda heartbeat: next(results)) for _ in range(2)] == [1, 2]


@pytest.mark.parametrize(
    ("variables", "writes", "knows_others"),
    [
        ({}, True, False),
        ({"RANK_ID": "0", "RANK_SIZE": "8", "JOB_ID": "7"}, True, True),
        ({"RANK_ID": "3", "RANK_SIZE": "8", "JOB_ID": "7"}, False, True),
        ({"RANK_ID": "0", "RANK_SIZE": "2", "LAUNCH_ID": "launch-x", "MS_ROLE": "MS_SCHED"}, False, True),
        ({"RANK_ID": "1", "RANK_SIZE": "2", "DEVICE_ID": "3"}, False, False),
        ({"RANK_ID": "0", "RANK_SIZE": "0", "JOB_ID": ""}, True, False),
    ],
)
def test_who_this_process_is(monkeypatch, variables, writes, knows_others):
    for name in ("RANK_ID", "RANK_SIZE", "JOB_ID", "MA_JOB_ID", "BATCH_JOB_ID", "MA_TASK_NAME", "LAUNCH_ID", "MS_ROLE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert (process().writes, bool(process().job)) == (writes, knows_others)


@pytest.mark.parametrize("parent", [0, 2**30])
def test_a_process_whose_starter_cannot_be_seen_knows_its_job(monkeypatch, parent):
    """In a container the starter may be outside (its number is 0 then), or it has ended."""
    for name, value in {"RANK_ID": "1", "RANK_SIZE": "2", "JOB_ID": "7"}.items():
        monkeypatch.setenv(name, value)
    for name in ("MA_JOB_ID", "BATCH_JOB_ID", "LAUNCH_ID", "MS_ROLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getppid", lambda: parent)
    assert process().job == "7"
