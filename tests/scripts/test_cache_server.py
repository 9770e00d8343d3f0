"""src/launch/cache_server.py and the functions of scripts/cache_util.sh, around a stand-in for MindSpore's server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from src.launch import cache_server
from tests.conftest import ROOT, default_signals
from tests.scripts.test_train_scripts import SESSION, Place
from tests.waiting import wait_until

WAIT = 180  # seconds for anything that takes less than one on an idle machine
SCRIPT = ROOT / "src" / "launch" / "cache_server.py"
# Writes its arguments and its process, then waits for a signal.
CHILD = "import os, sys, time; print(os.getpid(), *sys.argv[1:], flush=True); time.sleep(600)"
# Says which signals it gets, and ends with status 3 at the third.
COUNTS = r"""
import os, signal, sys, time
got = []
def note(number, frame):
    got.append(number)
    os.write(1, b"%d\n" % number)  # print cannot be interrupted by itself
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, note)
print("ready", flush=True)
while len(got) < 3:
    time.sleep(0.01)
sys.exit(3)
"""


@pytest.fixture
def place(tmp_path) -> Place:
    return Place(tmp_path)


def command(place: Place, *arguments: str) -> list[str]:
    return [sys.executable, str(SCRIPT), "--python", str(place.bin / "python"), *arguments]


def environment(place: Place, **more: str) -> dict[str, str]:
    return place.environment({"PYTHONPATH": str(ROOT), **more})


def start(place: Place, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        command(place, *arguments),
        cwd=place.folder,
        env=environment(place),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=default_signals,
    )


def ask(place: Place, *arguments: str, **more: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(place, *arguments),
        cwd=place.folder,
        env=environment(place, **more),
        capture_output=True,
        text=True,
        timeout=WAIT,
    )


def after_server(process: subprocess.Popen) -> str:
    """The first line of the command itself."""
    assert process.stdout.readline().startswith("dataset cache server started")
    return process.stdout.readline()


class TestCommandLine:
    def test_only_the_word_after_the_flag_is_replaced(self):
        given = ["python", "train.py", "--dataset_path", "SESSION", "--cache_session_id", "SESSION", "--x", "SESSION"]
        filled = cache_server.with_session(given, "77")
        assert filled == [*given[:5], "77", *given[6:]]
        assert cache_server.with_session(["a", "--cache_session_id", "5"], "77")[-1] == "5"

    def test_the_commands_words_stay_as_they_are(self, place):
        words = ["", "a b", "--", "--keep", "--se", "-1", "--spill", "*"]
        code = "import sys; print(sys.argv[1:])"
        result = ask(place, "run", sys.executable, "-c", code, *words)
        assert (result.returncode, result.stdout.splitlines()[-1]) == (0, str(words))

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            ([], "the following arguments are required: ACTION"),
            (["pause"], "argument ACTION: invalid choice: 'pause'"),
            (["run"], "run has no command"),
            (["--port", "x", "start"], "argument --port: invalid int value: 'x'"),
            (["destroy"], "the following arguments are required: ID"),
        ],
    )
    def test_wrong_usage(self, place, arguments, sentence):
        result = ask(place, *arguments)
        assert (result.returncode, result.stdout, place.calls()) == (2, "", [])
        assert result.stderr.startswith(f"error: {sentence}") and result.stderr.count("\n") == 1

    def test_a_command_that_does_not_exist_leaves_no_server(self, place):
        result = ask(place, "run", str(place.folder / "absent"), "x")
        assert result.returncode == 1
        assert f"error: cannot run {place.folder / 'absent'}: No such file or directory" in result.stderr
        assert place.steps() == ["--start", "--generate_session", "--stop"]

    def test_a_server_that_says_no_number(self, place):
        (place.bin / "dataset-cache").write_text("#!/bin/sh\necho no session today\n")
        result = ask(place, "session")
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr == "error: no dataset cache session in what the server said: no session today\n"


class TestSignals:
    def test_every_signal_is_passed_on(self, place):
        with start(place, "run", sys.executable, "-c", COUNTS) as process:
            assert after_server(process) == "ready\n"
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                process.send_signal(number)
                wanted = signal.SIGTERM if number == signal.SIGHUP else number
                assert process.stdout.readline() == f"{int(wanted)}\n"
            assert process.wait(WAIT) == 3
        assert place.steps() == ["--start", "--generate_session", "--stop"]

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
    def test_a_command_that_a_signal_ends(self, place, number):
        with start(place, "run", sys.executable, "-c", CHILD) as process:
            os.kill(int(after_server(process)), number)
            assert process.wait(WAIT) == 128 + number
        assert place.steps()[-1] == "--stop"

    def test_the_command_ends_with_the_one_that_started_it(self, place):
        with start(place, "run", sys.executable, "-c", CHILD) as process:
            child = psutil.Process(int(after_server(process)))
            process.kill()
            wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "the command's end")

    def test_the_command_has_a_process_group_of_its_own(self, place):
        """Ctrl-C on a terminal signals the whole group; the command gets it once, from the one that started it."""
        with start(place, "run", sys.executable, "-c", CHILD) as process:
            child = int(after_server(process))
            assert os.getpgid(child) == child
            process.send_signal(signal.SIGINT)
            assert process.wait(WAIT) == 128 + signal.SIGINT
        assert place.steps()[-1] == "--stop"

    def test_what_is_ignored_stays_so(self, place):
        """nohup ignores SIGHUP, so that closing the terminal does not end the training."""
        with subprocess.Popen(
            ["nohup", *command(place, "run", sys.executable, "-c", COUNTS)],
            cwd=place.folder,
            env=environment(place),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            preexec_fn=default_signals,
        ) as process:
            assert after_server(process) == "ready\n"
            process.send_signal(signal.SIGHUP)
            time.sleep(0.2)  # for a signal that would be passed on
            for _ in range(3):
                process.send_signal(signal.SIGINT)
                assert process.stdout.readline() == f"{int(signal.SIGINT)}\n"
            assert process.wait(WAIT) == 3


FUNCTIONS = f"""
source {ROOT}/scripts/common.sh
source {ROOT}/scripts/cache_util.sh
bootup_cache_server "$@"
generate_cache_session
echo "session $CACHE_SESSION"
shutdown_cache_server
"""


class TestFunctions:
    """The functions as another script uses them."""

    def run(self, place: Place, *arguments: str, **more: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            ["bash", "-c", FUNCTIONS, "script", *arguments],
            cwd=place.folder,
            env=place.environment(more),
            capture_output=True,
            text=True,
            timeout=WAIT,
        )

    def test_start_session_stop(self, place):
        (place.folder / "spill here").mkdir()
        result = self.run(place, "spill here", CACHE_PORT="50999")
        assert (result.returncode, result.stderr) == (0, "")
        started = "dataset cache server started on port 50999, logs in /tmp/mindspore/cache/log"
        assert result.stdout.splitlines() == [started, f"session {SESSION}"]
        assert [call["cache"] for call in place.calls()] == [
            ["--start", "-s", "spill here", "-p", "50999"],
            ["--generate_session", "-p", "50999"],
            ["--stop", "-p", "50999"],
        ]

    def test_a_server_that_runs_already_stays(self, place):
        assert self.run(place, CACHE="running").returncode == 0
        assert place.steps() == ["--start", "--generate_session", "--destroy_session"]

    def test_a_session_that_is_given_stays(self, place):
        result = self.run(place, CACHE="running", CACHE_SESSION="77")
        assert "session 77" in result.stdout
        assert place.steps() == ["--start"]

    def test_an_error_ends_the_script(self, place):
        result = self.run(place, CACHE="broken")
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr.startswith(
            "error: the dataset cache server did not start: Port is taken by somebody else."
        )
        assert place.steps() == ["--start"]
