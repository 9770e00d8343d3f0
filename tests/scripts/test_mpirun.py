"""The start on GPUs with the real Open MPI (Debian: openmpi-bin): ranks that do not train; no MindSpore."""

from __future__ import annotations

import json
import shutil
import signal

import psutil
import pytest

from tests.scripts.test_supervise import WAIT, Launched
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

RANKS = 4  # more than the test machines have cores
OPTIONS = ("--platform", "GPU", "--engine", "mpirun", "--device_num", str(RANKS), "--devices", "4,5,6,7")
OPTIONS += ("--first_log", "train.log")
ALL_UP = tuple(f"up{rank}" for rank in range(RANKS))
NAMES = ("RANK_ID", "RANK_SIZE", "DEVICE_ID", "CUDA_VISIBLE_DEVICES", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE")
TELL = f"""
import json, os
told = {{name: os.environ.get(name) for name in {NAMES}}}
print(json.dumps({{**told, "table": "RANK_TABLE_FILE" in os.environ, "cores": sorted(os.sched_getaffinity(0))}}))
"""


@pytest.fixture(scope="module", autouse=True)
def open_mpi():
    if not shutil.which("mpirun"):
        pytest.skip("mpirun is not installed (Debian: openmpi-bin, which .ci/run installs where it can)")


@pytest.fixture
def launched(tmp_path):
    made = Launched(tmp_path)
    yield made
    for process in made.left():
        process.kill()


def log_of(rank: int) -> str:
    return f"train/rank{rank}/log{rank}.log" if rank else "train.log"


def daemons(launched: Launched) -> list[psutil.Process]:
    """mpirun itself among the processes of the launch."""
    return [process for process in launched.left() if process.name() == "mpirun"]


def test_every_rank_has_its_environment_its_cores_and_its_log(launched):
    (launched.folder / "rank script.py").write_text(TELL)
    result = launched.run(*OPTIONS, RANK_TABLE_FILE="of/an/outer/launcher", RANK_ID="9", MS_ROLE="MS_WORKER")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == launched.text("train.log")
    planned = [json.loads(row) for row in launched.run(*OPTIONS, "--dry_run").stdout.splitlines()]
    assert len(planned) == RANKS
    for rank in range(RANKS):
        told = json.loads(launched.text(log_of(rank)))
        values = (str(rank), str(RANKS), str(rank), "4,5,6,7", str(rank), str(RANKS))
        assert tuple(told[name] for name in NAMES) == values
        assert (told["table"], told["cores"]) == (False, planned[rank]["cpus"])
    assert launched.left() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_every_rank_once(launched, number):
    process = launched.start(*OPTIONS)
    launched.until(*ALL_UP)
    assert len(daemons(launched)) == 1, "it is Open MPI that has started them"
    process.send_signal(number)
    _, errors = process.communicate(timeout=WAIT)
    assert process.returncode == 40 + number, errors
    assert [launched.text(f"signals{rank}") for rank in range(RANKS)] == [f"{int(number)}\n"] * RANKS
    assert launched.left() == []


def test_ranks_that_end_well_after_a_signal_end_the_launcher_well(launched):
    process = launched.start(*OPTIONS, orders=("wait", "polite"))
    launched.until(*ALL_UP)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=WAIT)[1] == ""
    assert process.returncode == 0


@pytest.mark.parametrize("status", [1, 5, 255])
def test_a_rank_that_fails_ends_the_others_with_its_status(launched, status):
    result = launched.run(*OPTIONS, orders=("wait", "child", f"exit2={status}"))
    assert result.returncode == status, result.stderr
    lines = result.stderr.splitlines()
    assert lines[0] == f"error: rank 2 failed with status {status}; its log is {launched.folder / log_of(2)}"
    assert lines[-1] == "rank 2 gives up"
    assert launched.text("train.log").endswith(result.stderr)
    for rank in (0, 1, 3):  # one may have been asked to end before it could note it
        if (launched.folder / f"signals{rank}").exists():
            assert launched.text(f"signals{rank}") == f"{int(signal.SIGTERM)}\n"
    assert launched.left() == []


def test_a_killed_rank_is_137(launched):
    result = launched.run(*OPTIONS, orders=("wait", "kill1"))
    assert result.returncode == 137
    assert result.stderr.startswith("error: rank 1 was ended by SIGKILL; its log is ")
    assert launched.left() == []


def test_nobody_is_killed_while_it_still_sends_its_results(launched):
    """Open MPI kills all as soon as one has failed; the first rank sends its results for a second."""
    process = launched.start(*OPTIONS, orders=("wait", "uploads"))
    launched.until(*ALL_UP)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=WAIT)
    assert process.returncode == 40 + signal.SIGTERM
    assert (launched.folder / "uploaded").exists()
    assert launched.left() == []


def test_a_second_signal_kills(launched):
    process = launched.start(*OPTIONS, orders=("wait", "stubborn"))
    launched.until(*ALL_UP)
    process.send_signal(signal.SIGINT)
    launched.until(*(f"signals{rank}" for rank in range(RANKS)))
    wait_until(lambda: process.send_signal(signal.SIGINT) or process.poll() is not None, "the end", pause=0.5)
    assert process.returncode == 130
    assert launched.left() == []


@pytest.mark.parametrize("victim", ["launcher", "mpirun"])
def test_killing_what_started_the_ranks_leaves_nobody_behind(launched, victim):
    process = launched.start(*OPTIONS)
    launched.until(*ALL_UP)
    (process if victim == "launcher" else daemons(launched)[0]).kill()
    process.communicate(timeout=WAIT)
    assert process.returncode != 0
    wait_until(lambda: not launched.left(), "the end of all ranks")


def test_a_signal_before_the_ranks_have_started_is_not_lost(launched):
    process = launched.start(*OPTIONS)
    wait_until(lambda: daemons(launched), "mpirun", process=process)
    process.send_signal(signal.SIGTERM)
    errors = process.communicate(timeout=WAIT)[1]
    assert "did not end by themselves" not in errors
    assert process.returncode in (143, 40 + signal.SIGTERM)  # a rank may not have come to note it
    assert launched.left() == []


def test_what_open_mpi_leaves_in_the_temporary_folder_is_gone(launched, tmp_path):
    """Its session folder, which it removes itself if it is given the time."""
    place = tmp_path / "temporary"
    place.mkdir()
    process = launched.start(*OPTIONS, TMPDIR=str(place))
    launched.until(*ALL_UP)
    assert list(place.rglob("pid.*"))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=WAIT)
    assert not list(place.rglob("pid.*")), sorted(place.rglob("*"))
