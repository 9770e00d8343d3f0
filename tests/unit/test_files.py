"""The lock that everything uses that may run twice at the same time: who waits, who is refused, when it ends."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from src.engine.errors import ZooError
from src.engine.io import files
from src.launch import supervise
from tests.conftest import ROOT, run_command
from tests.waiting import wait_until

HOLD = """
import sys, time
from pathlib import Path
from src.engine.io import files
Path(sys.argv[2] + ".begun").touch()
with files.locked(Path(sys.argv[1])):
    Path(sys.argv[2]).touch()
    time.sleep(600)
"""


class Refused(Exception):
    pass


def refuse() -> None:
    raise Refused


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of `lock`."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "lock"), str(tmp_path / "held")]
    with subprocess.Popen(command, cwd=ROOT) as process:
        try:
            wait_until((tmp_path / "held").exists, "the lock of another process", process=process)
            yield process
        finally:
            process.kill()


def is_free(path) -> bool:
    try:
        with files.locked(path, refuse):
            return True
    except Refused:
        return False


def test_a_lock_makes_its_file_and_ends_with_its_block(tmp_path):
    path = tmp_path / "lock"
    with files.locked(path):
        assert not is_free(path)
    assert is_free(path)
    with pytest.raises(KeyError), files.locked(path):
        raise KeyError
    assert is_free(path)


def test_what_the_file_holds_stays(tmp_path):
    path = tmp_path / "lock"
    path.write_text("12")
    with files.locked(path):
        assert path.read_text() == "12"


def test_an_error_of_the_block_is_not_taken_for_a_lock_that_is_held(tmp_path):
    asked = []
    with pytest.raises(BlockingIOError), files.locked(tmp_path / "lock", lambda: asked.append(1)):
        raise BlockingIOError
    assert asked == []


def test_another_process_is_waited_for(holder, tmp_path):
    looks = []

    def look() -> None:
        looks.append(1)
        if len(looks) == 3:
            holder.send_signal(signal.SIGKILL)  # its lock dies with it
            holder.wait(60)

    with files.locked(tmp_path / "lock", look):
        assert len(looks) >= 3
    holder.wait(60)


def test_without_a_callback_the_lock_is_waited_for(holder, tmp_path):
    waiting = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "lock"), str(tmp_path / "second")], cwd=ROOT)
    try:
        wait_until((tmp_path / "second.begun").exists, "the second one's start", process=waiting)
        assert not (tmp_path / "second").exists()
        holder.kill()
        wait_until((tmp_path / "second").exists, "the second one's turn", process=waiting)
    finally:
        waiting.kill()
        waiting.wait()


def test_a_file_that_cannot_be_made_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError), files.locked(tmp_path / "absent" / "lock"):
        pass


def test_a_run_folder_that_is_taken(tmp_path):
    sentence = r"another run is writing to .*run; wait for it or choose another"
    with files.owned_folder(tmp_path / "run"), pytest.raises(ZooError, match=sentence):
        files.owned_folder(tmp_path / "run").__enter__()
    with files.owned_folder(tmp_path / "run") as folder:
        assert folder == tmp_path / "run"


def test_only_what_a_killed_run_left_is_cleared(tmp_path):
    """infer.py may be writing its table into a sub-folder right now."""
    left = [f"{place}.writing-x" for place in ("", "features/", "archives/")]
    others = ["pictures/.writing-y", "previous/1/.writing-z"]
    for name in left + others:
        (tmp_path / name).mkdir(parents=True)
    with files.owned_folder(tmp_path):
        assert not [name for name in left if (tmp_path / name).exists()]
        assert all((tmp_path / name).is_dir() for name in others)


def test_a_run_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    sentence = r"cannot write to .*file/run: Not a directory; choose another"
    with pytest.raises(ZooError, match=sentence), files.owned_folder(tmp_path / "file" / "run"):
        pass


def test_a_log_that_another_launch_writes(tmp_path):
    path = tmp_path / "train" / "x.log"
    with supervise.new_log(path):
        path.write_text("first")
        with pytest.raises(ZooError, match=r"another run is writing .*x\.log; wait for its end"):
            supervise.new_log(path).__enter__()
        assert path.read_text() == "first"
    with supervise.new_log(path):
        assert path.read_text() == ""
        assert path.with_name("x.log.1").read_text() == "first"


def test_a_conversion_of_masks_that_runs_already(tmp_path):
    (tmp_path / "gtFine").mkdir()
    with files.locked(tmp_path / "gtFine" / ".lock"):
        result = run_command("tools/convert_dataset.py", tmp_path)
    assert result.returncode == 1
    assert result.stderr == f"error: another conversion of {tmp_path} is running; wait for it\n"
