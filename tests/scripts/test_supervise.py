"""python -m src.launch with real processes: status, logs, signals, and that nobody is left behind; no MindSpore."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil
import pytest

from src.launch import plan, rank_table, supervise
from tests.conftest import ROOT, default_signals
from tests.waiting import wait_until

WAIT = 180  # seconds for anything that takes less than one on an idle machine

# A rank that says who it is and follows the orders in its arguments; exit1=5, kill1 and kill_parent1 are for rank 1.
RANK = """
import os, signal, sys, time
me, orders = int(os.environ.get("RANK_ID", 0)), sys.argv[1:]
signals = []
def note(number, frame):
    signals.append(number)
    with open(f"signals{me}", "a") as out:
        print(number, file=out)
    if me == 0 and "uploads" in orders:
        time.sleep(1)  # the time that sending the results takes
        open("uploaded", "w").close()
    if "stubborn" not in orders:
        sys.exit(0 if "polite" in orders else 40 + number)
signal.signal(signal.SIGTERM, note)
signal.signal(signal.SIGINT, note)
print("rank", me, "of", os.environ.get("RANK_SIZE"), "card", os.environ.get("DEVICE_ID"), flush=True)
if "child" in orders:
    import subprocess
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", os.environ["MARK"]])
open(f"up{me}", "w").close()
for order in orders:
    if order.startswith(f"exit{me}="):
        time.sleep(0.3)
        print("rank", me, "gives up", flush=True)
        os._exit(int(order.split("=")[1]))
    if order == f"kill{me}":
        os.kill(os.getpid(), signal.SIGKILL)
    if order == f"kill_parent{me}":
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(600)
while "wait" in orders:
    time.sleep(0.05)
"""

# Open MPI's part: N copies that are told who they are; it kills all when one fails, and passes SIGTERM on.
MPIRUN = f"""#!{sys.executable}
import os, signal, subprocess, sys, time
if "SLOW" in os.environ:
    open("mpirun_up", "w").close()
    time.sleep(1)
words = sys.argv[1:]
count = int(words[words.index("-n") + 1])
command = words[words.index("none") + 1:]
ranks = [
    subprocess.Popen(command, env={{**os.environ, "OMPI_COMM_WORLD_RANK": str(i), "OMPI_COMM_WORLD_LOCAL_RANK": str(i),
                                   "OMPI_COMM_WORLD_SIZE": str(count)}})
    for i in range(count)
]
signal.signal(signal.SIGTERM, lambda number, frame: [rank.terminate() for rank in ranks])
while any(rank.poll() is None for rank in ranks):
    if failed := max(rank.poll() or 0 for rank in ranks):
        for rank in ranks:
            rank.kill()
        sys.exit(failed)
    time.sleep(0.02)
sys.exit(max(rank.wait() for rank in ranks))
"""


class Launched:
    """A launcher in a folder of its own, with a word in the environment that names all of its processes."""

    def __init__(self, folder: Path):
        self.folder, self.mark = folder, f"mark-{uuid.uuid4()}"
        (folder / "rank script.py").write_text(RANK)

    def command(self, *options: str, orders: tuple[str, ...] = ()) -> list[str]:
        return [sys.executable, "-m", "src.launch", *options, "rank script.py", *orders]

    def environment(self, **more: str) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(ROOT), "MARK": self.mark, **more}

    def run(self, *options: str, orders: tuple[str, ...] = (), **environment: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            self.command(*options, orders=orders),
            cwd=self.folder,
            env=self.environment(**environment),
            capture_output=True,
            text=True,
            timeout=WAIT,
        )

    def start(self, *options: str, orders: tuple[str, ...] = ("wait",), **environment: str) -> subprocess.Popen:
        self.process = subprocess.Popen(
            self.command(*options, orders=orders),
            cwd=self.folder,
            env=self.environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=default_signals,
        )
        return self.process

    def until(self, *names: str) -> None:
        """Wait until these files of the folder exist."""
        wait_until(lambda: all((self.folder / name).exists() for name in names), str(names))

    def left(self) -> list[psutil.Process]:
        """The processes that carry the mark and still run."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("MARK") == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def text(self, name: str) -> str:
        return (self.folder / name).read_text()


@pytest.fixture
def launched(tmp_path):
    made = Launched(tmp_path)
    yield made
    for process in made.left():
        process.kill()


@pytest.fixture
def table(tmp_path) -> tuple[str, ...]:
    """Options for four cards with a rank table."""
    made = rank_table.one_server("10.0.0.1", [(card, f"192.168.0.{card}") for card in (4, 5, 6, 7)])
    (tmp_path / "hccl.json").write_text(rank_table.as_json(made))
    return "--platform", "Ascend", "--device_num", "4", "--devices", "4,5,6,7", "--rank_table", "hccl.json"


ALL_UP = ("up0", "up1", "up2", "up3")
FIRST = ("--first_log", "train.log")


class TestOneProcess:
    def test_output_goes_to_the_terminal_and_the_log(self, launched):
        result = launched.run(*FIRST)
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout == launched.text("train.log") == "rank 0 of None card None\n"
        assert launched.left() == []

    @pytest.mark.parametrize("status", [1, 2, 3, 137, 255])
    def test_its_status_is_the_launchers(self, launched, status):
        result = launched.run(*FIRST, orders=(f"exit0={status}",))
        assert (result.returncode, result.stderr) == (status, "")
        assert result.stdout.endswith("rank 0 gives up\n")

    def test_killed_is_137(self, launched):
        assert launched.run(*FIRST, orders=("kill0",)).returncode == 137

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_reaches_it_once(self, launched, number):
        process = launched.start(*FIRST)
        launched.until("up0")
        process.send_signal(number)
        process.communicate(timeout=WAIT)
        assert (process.returncode, launched.text("signals0")) == (40 + number, f"{int(number)}\n")

    def test_a_signal_before_it_has_started_is_not_lost(self, launched):
        process = launched.start(*FIRST)
        # the log is made before the rank, and the launcher takes signals from then on
        wait_until(lambda: (launched.folder / "train.log").exists(), "a log")
        time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert "did not end by themselves" not in process.communicate(timeout=WAIT)[1]
        assert process.returncode in (143, 40 + signal.SIGTERM, -signal.SIGTERM)
        assert launched.left() == []

    def test_old_logs_are_kept_with_a_number(self, launched):
        for text in ("oldest", "older"):
            launched.folder.joinpath("train.log").write_text(text)
            assert launched.run(*FIRST).returncode == 0
        assert (launched.text("train.log.1"), launched.text("train.log.2")) == ("oldest", "older")
        assert launched.text("train.log").startswith("rank 0")

    def test_a_log_that_cannot_be_written_is_one_sentence(self, launched):
        (launched.folder / "file").write_text("")
        result = launched.run("--first_log", "file/train.log")
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr.startswith("error: cannot write ")
        assert len(result.stderr.splitlines()) == 1

    def test_a_reader_that_leaves_does_not_end_the_training(self, launched):
        process = launched.start(*FIRST, orders=("wait", "polite"))
        launched.until("up0")
        process.stdout.close()
        (launched.folder / "train.log").open("a").write("a line that nobody reads\n")
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.stderr.read() == ""
        assert process.wait(WAIT) == 0

    @pytest.mark.parametrize("unbuffered", ["", "1"])
    def test_a_failure_that_nobody_reads_keeps_its_status(self, launched, table, unbuffered):
        process = launched.start(*table, orders=("exit0=6",), PYTHONUNBUFFERED=unbuffered)
        process.stdout.close()
        process.stderr.close()
        assert process.wait(WAIT) == 6

    def test_variables_of_an_outer_launcher_are_removed(self, launched):
        result = launched.run(*FIRST, RANK_ID="3", RANK_SIZE="8", RANK_TABLE_FILE="x")
        assert result.stdout == "rank 0 of None card None\n"

    def test_letters_of_several_bytes_pass_unharmed(self, launched):
        (launched.folder / "rank script.py").write_text(
            "import os, time\nfor byte in '损失'.encode():\n    os.write(1, bytes([byte])); time.sleep(0.15)\n"
        )
        assert launched.run(*FIRST, PYTHONUTF8="1").stdout == "损失"


class TestRankTable:
    def test_four_ranks(self, launched, table):
        result = launched.run(*table)
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout == "rank 0 of 4 card 4\n"
        for rank in range(4):
            assert launched.text(f"train/rank{rank}/log{rank}.log") == f"rank {rank} of 4 card {rank + 4}\n"

    @pytest.mark.parametrize(("status", "how"), [(7, "failed with status 7"), (255, "failed with status 255")])
    def test_the_first_that_fails_stops_the_others_and_is_shown(self, launched, table, status, how):
        result = launched.run(*table, orders=("wait", f"exit2={status}"))
        assert result.returncode == status
        log = launched.folder / "train/rank2/log2.log"
        assert result.stderr == f"error: rank 2 {how}; its log is {log}\nrank 2 of 4 card 6\nrank 2 gives up\n"
        assert launched.text("train/rank0/log0.log").endswith(result.stderr)
        # a rank may have failed before another was up to note the signal
        for rank in (0, 1, 3):
            if (launched.folder / f"signals{rank}").exists():
                assert launched.text(f"signals{rank}") == f"{int(signal.SIGTERM)}\n"
        assert not (launched.folder / "signals2").exists()
        assert launched.left() == []

    def test_a_killed_rank_is_137(self, launched, table):
        result = launched.run(*table, orders=("wait", "kill1"))
        assert result.returncode == 137
        assert result.stderr.startswith("error: rank 1 was ended by SIGKILL; its log is ")
        assert launched.left() == []

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_reaches_every_rank_once(self, launched, table, number):
        process = launched.start(*table)
        launched.until(*ALL_UP)
        process.send_signal(number)
        process.communicate(timeout=WAIT)
        assert process.returncode == 40 + number
        assert [launched.text(f"signals{rank}") for rank in range(4)] == [f"{int(number)}\n"] * 4
        assert launched.left() == []

    def test_ranks_that_end_well_after_a_signal_end_the_launcher_well(self, launched, table):
        process = launched.start(*table, orders=("wait", "polite"))
        launched.until(*ALL_UP)
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=WAIT)[1] == ""
        assert process.returncode == 0

    def test_a_second_signal_kills(self, launched, table):
        process = launched.start(*table, orders=("wait", "stubborn"))
        launched.until(*ALL_UP)
        process.send_signal(signal.SIGINT)
        launched.until("signals0", "signals1", "signals2", "signals3")
        time.sleep(supervise.SAME_SIGNAL + 0.2)  # one that comes within a second is the same
        process.send_signal(signal.SIGINT)
        assert "4 of 4 ranks did not end by themselves" in process.communicate(timeout=WAIT)[1]
        assert process.returncode == 130
        assert launched.left() == []

    def test_killing_the_launcher_leaves_nobody_behind(self, launched, table):
        process = launched.start(*table)
        launched.until(*ALL_UP)
        process.kill()
        wait_until(lambda: not launched.left(), "the end of all ranks")
        assert [launched.text(f"signals{rank}") for rank in range(4)] == [f"{int(signal.SIGTERM)}\n"] * 4

    def test_killing_the_launcher_at_once_leaves_nobody_behind(self, launched, table):
        process = launched.start(*table)
        wait_until(lambda: len(launched.left()) > 2, "a rank")
        process.kill()
        wait_until(lambda: not launched.left(), "the end of all ranks")

    def test_what_the_ranks_started_is_not_left_behind(self, launched, table):
        result = launched.run(*table, orders=("child", "wait", "exit3=9"))
        assert result.returncode == 9
        assert launched.left() == []

    def test_a_rank_whose_keeper_was_killed(self, launched, table):
        result = launched.run(*table, orders=("wait", "kill_parent1"))
        assert result.returncode in (143, 40 + signal.SIGTERM)  # a rank may not have come to note it
        assert "Traceback" not in result.stderr
        assert launched.left() == []

    @pytest.mark.parametrize(("given", "seconds"), [({}, "600"), ({"HCCL_CONNECT_TIMEOUT": "1800"}, "1800")])
    def test_the_users_own_timeout_wins(self, launched, table, given, seconds):
        (launched.folder / "rank script.py").write_text("import os\nprint(os.environ['HCCL_CONNECT_TIMEOUT'])\n")
        assert launched.run(*table, **given).stdout == seconds + "\n"

    def test_each_rank_has_its_cores(self, launched, table):
        (launched.folder / "rank script.py").write_text("import os\nprint(sorted(os.sched_getaffinity(0)))\n")
        assert launched.run(*table).returncode == 0
        rows = launched.run(*table, "--dry_run").stdout.splitlines()
        for rank, row in enumerate(rows):
            assert json.loads(launched.text(f"train/rank{rank}/log{rank}.log")) == json.loads(row)["cpus"]


class TestMpirun:
    OPTIONS = ("--platform", "GPU", "--device_num", "2", "--devices", "0,1", *FIRST)

    @pytest.fixture
    def path(self, tmp_path) -> str:
        """A PATH with a stand-in for mpirun."""
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin/mpirun").write_text(MPIRUN)
        (tmp_path / "bin/mpirun").chmod(0o755)
        return f"{tmp_path / 'bin'}:/usr/bin:/bin"

    def test_two_ranks(self, launched, path):
        result = launched.run(*self.OPTIONS, PATH=path)
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout == launched.text("train.log") == "rank 0 of 2 card 0\n"
        assert launched.text("train/rank1/log1.log") == "rank 1 of 2 card 1\n"

    def test_a_rank_that_fails(self, launched, path):
        result = launched.run(*self.OPTIONS, orders=("wait", "exit1=5"), PATH=path)
        assert result.returncode == 5
        assert result.stderr.splitlines()[0].startswith("error: rank 1 failed with status 5; its log is ")
        assert launched.left() == []

    def test_a_signal_reaches_every_rank_once(self, launched, path):
        process = launched.start(*self.OPTIONS, PATH=path)
        launched.until("up0", "up1")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=WAIT)
        assert process.returncode == 40 + signal.SIGINT
        assert [launched.text(f"signals{rank}") for rank in range(2)] == [f"{int(signal.SIGINT)}\n"] * 2

    def test_nobody_is_killed_while_it_still_sends_its_results(self, launched, path):
        process = launched.start(*self.OPTIONS, orders=("wait", "uploads"), PATH=path)
        launched.until("up0", "up1")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=WAIT)
        assert process.returncode == 40 + signal.SIGTERM
        assert (launched.folder / "uploaded").exists()
        assert launched.left() == []

    def test_a_signal_before_the_ranks_have_started_is_not_lost(self, launched, path):
        process = launched.start(*self.OPTIONS, PATH=path, SLOW="1")
        launched.until("mpirun_up")
        process.send_signal(signal.SIGTERM)
        assert "did not end by themselves" not in process.communicate(timeout=WAIT)[1]
        assert process.returncode in (143, 40 + signal.SIGTERM)  # a rank may not have come to note it
        assert launched.left() == []

    def test_killing_the_launcher_leaves_nobody_behind(self, launched, path):
        process = launched.start(*self.OPTIONS, PATH=path)
        launched.until("up0", "up1")
        process.kill()
        wait_until(lambda: not launched.left(), "the end of all ranks")

    def test_an_mpirun_that_fails_is_shown(self, launched, path):
        (launched.folder / "bin/mpirun").write_text("#!/bin/sh\necho there are not enough slots >&2\nexit 3\n")
        result = launched.run(*self.OPTIONS, PATH=path)
        assert result.returncode == 3
        assert result.stderr == "error: 2 of 2 ranks did not end by themselves\nthere are not enough slots\n"
        assert launched.text("train.log") == result.stderr

    def test_no_mpirun_is_one_sentence(self, launched):
        result = launched.run(*self.OPTIONS, PATH=str(launched.folder))
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr == "error: mpirun is not installed; install Open MPI or use --engine msrun\n"


def test_a_keeper_that_was_ended_with_the_rest_has_no_status(tmp_path):
    """end_all takes the status of processes that had to be killed, and the launcher reports all the same."""
    (tmp_path / "starter.log").write_text("")
    log = tmp_path / "train.log"
    made = plan.make(plan.Request(script=__file__, first_log=str(log)), [0])
    taken = subprocess.Popen(["true"])
    os.waitpid(taken.pid, 0)
    killed = subprocess.Popen(["sleep", "60"])
    killed.kill()
    killed.wait()
    with supervise.Asked() as nobody:
        assert supervise.report(made, tmp_path, [taken], nobody) == 1
        assert supervise.report(made, tmp_path, [taken, killed], nobody) == 137
    assert log.read_text().startswith("error: 1 of 1 ranks did not end by themselves\n")


@pytest.mark.parametrize(
    ("status", "text"),
    [(1, "failed with status 1"), (255, "failed with status 255"), (137, "was ended by SIGKILL")],
)
def test_how_it_ended(status, text):
    assert supervise.how_it_ended(status) == text


def test_a_missing_package_is_one_sentence(tmp_path):
    """-S: this Python without the packages of its environment."""
    command = [sys.executable, "-S", ROOT / "src/launch/__main__.py", "--dry_run", "x.py"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=WAIT)
    assert result.returncode == 1
    assert re.fullmatch(r"error: \w+ is not installed; run: pip install -r requirements.txt\n", result.stderr)
