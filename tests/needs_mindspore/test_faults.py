"""A training that is killed, or meets a full disk, damaged checkpoints, a jumping clock or a second run, loses nothing.

The loop, the run folder and the checkpoints are the real ones; tests/fault_training.py has sums in place of a network,
so that a start takes milliseconds. test_recipes.py and test_ranks.py kill real networks.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.needs_mindspore
ms = pytest.importorskip("mindspore")

from src.engine.errors import ZooError  # noqa: E402
from src.engine.io import checkpoint  # noqa: E402
from src.engine.io.run import RunSettings, open_run  # noqa: E402
from src.engine.loop import Position, Schedule, Score  # noqa: E402
from src.engine.ranks import Rank  # noqa: E402
from tests import fault_training  # noqa: E402
from tests.conftest import ROOT, run_command  # noqa: E402
from tests.fault_training import BEST, LAST, NAMES  # noqa: E402
from tests.waiting import wait_until  # noqa: E402

KILLS = 24


def assert_same(one: Path, other: Path) -> None:
    """Every array of two checkpoints is equal to the last bit, and so is the position."""
    first, second = checkpoint.read(one), checkpoint.read(other)
    assert first.arrays.keys() == second.arrays.keys()
    for name, array in first.arrays.items():
        assert (array == second.arrays[name]).all(), name
    assert first.meta.get("position") == second.meta.get("position")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    fault_training.train(folder)
    return folder


@pytest.mark.parametrize("in_flight", [1, 2])
def test_killed_at_random_moments_and_resumed_it_reaches_the_same_weights(undisturbed, tmp_path, in_flight):
    seed = int.from_bytes(os.urandom(3), "big")
    flags = ("--kills", KILLS, "--seed", seed, "--in_flight", in_flight)
    result = run_command("-m", "tests.fault_training", tmp_path / "run", *flags)
    assert result.returncode == 0, (seed, result.stderr)
    hits = json.loads(result.stdout)
    finished = hits.pop("finished first")
    assert sum(hits.values()) >= KILLS and len(hits) > 1, (seed, hits, finished)
    assert_same(tmp_path / "run" / LAST, undisturbed / LAST)
    assert not list(tmp_path.glob("run/.writing-*"))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"mounting is not allowed here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_disk_that_is_full_leaves_the_last_good_checkpoint_and_room_lets_it_go_on(small_disk, tmp_path):
    size = 40_000  # a checkpoint of 320 kB, and of 160 kB for the best weights
    filler = small_disk / "other people's files"
    filler.write_bytes(bytes(1_100_000))
    with pytest.raises(ZooError, match=r"cannot write .*: No space left on device; make room or choose another folder"):
        fault_training.train(small_disk / "run", size)
    said = []
    good = NAMES.newest_good(small_disk / "run", said.append)
    assert good is not None and said == [], "no damaged file has the name of a checkpoint"
    filler.unlink()
    fault_training.train(small_disk / "run", size)
    fault_training.train(tmp_path / "undisturbed", size)
    assert_same(small_disk / "run" / LAST, tmp_path / "undisturbed" / LAST)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "zeroed"])
def test_damaged_checkpoints_are_named_and_the_one_before_is_taken(undisturbed, tmp_path, capsys, damage):
    rng = np.random.default_rng()
    shutil.copytree(undisturbed, tmp_path / "run")
    newest, before = [path for *_, path in reversed(NAMES.find(tmp_path / "run"))][:2]
    whole = newest.read_bytes()
    for _ in range(20):
        position = int(rng.integers(3, len(whole) - 20))
        if damage == "truncated":
            newest.write_bytes(whole[:position])
        elif damage == "flipped":
            flipped = bytearray(whole)
            flipped[position] ^= 1 << int(rng.integers(8))
            newest.write_bytes(flipped)
        else:  # what a machine that lost power may leave: the right size without the content
            newest.write_bytes(whole[:position] + bytes(len(whole) - position))
        said = []
        assert NAMES.newest_good(tmp_path / "run", said.append).path == before, position
        assert newest.name in said[0] and "trying the checkpoint before it" in said[0]
    fault_training.train(tmp_path / "run")
    assert f"resumed from {before}" in capsys.readouterr().out
    assert_same(newest, undisturbed / LAST)


@pytest.mark.parametrize(("steps", "where"), [(6, "epoch 2, step 1"), (10, "epoch 2, step 5")])
def test_weights_that_are_not_finite_are_not_saved(undisturbed, tmp_path, steps, where):
    """The loss is of before the update, so the last step before a save can spoil the weights unseen."""
    with pytest.raises(
        ZooError, match=f"'weight' is not finite after {where}; the last checkpoint is from before, lower"
    ):
        fault_training.train(tmp_path / "run", diverges_at=steps)
    paths = [*(tmp_path / "run").glob("*.ckpt")]
    assert paths
    for path in paths:
        assert all(np.isfinite(array).all() for array in checkpoint.read(path).arrays.values()), path
    fault_training.train(tmp_path / "run")
    assert_same(tmp_path / "run" / LAST, undisturbed / LAST)


def test_the_best_weights_are_finite(tmp_path):
    with open_run(RunSettings(tmp_path / "run", NAMES, BEST, {}, ""), Rank()) as run:
        with pytest.raises(ZooError, match="'weight' is not finite after an evaluation; the last checkpoint is from"):
            run.save_weights(BEST, {"whole": np.ones(3, np.int32), "weight": np.array([1, np.nan], np.float32)}, 1.0)
        assert not (tmp_path / "run" / BEST).exists()


def test_a_clock_that_jumps_changes_nothing(undisturbed, tmp_path, capsys, monkeypatch):
    """Neither while it trains, nor by the times of files: the newest checkpoint is the one with the highest number."""
    shutil.copytree(undisturbed, tmp_path / "run")
    (tmp_path / "run" / LAST).unlink()
    for number, (*_, path) in enumerate(NAMES.find(tmp_path / "run")):
        os.utime(path, (1e9 - 1e6 * number, 1e9 - 1e6 * number))
    real, rng = time.time, np.random.default_rng()
    monkeypatch.setattr(time, "time", lambda: real() + rng.uniform(-1e9, 1e9))
    fault_training.train(tmp_path / "run")
    assert f"resumed from {tmp_path}/run/toy-5_5.ckpt" in capsys.readouterr().out
    assert_same(tmp_path / "run" / LAST, undisturbed / LAST)


def test_a_second_run_on_the_same_folder_is_refused_and_harms_nothing(undisturbed, tmp_path):
    command = [sys.executable, "-m", "tests.fault_training", str(tmp_path / "run"), "--pause", "0.2"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as first:
        wait_until((tmp_path / "run" / "train.log").exists, "the log", process=first, pause=0.005)
        first.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(ZooError, match="another run is writing to"):
                fault_training.train(tmp_path / "run")
        finally:
            first.send_signal(signal.SIGCONT)
    assert first.returncode == 0
    assert_same(tmp_path / "run" / LAST, undisturbed / LAST)
    assert_same(tmp_path / "run" / BEST, undisturbed / BEST)


@dataclass(frozen=True)
class RankOfThread(Rank):
    """One of two ranks that are threads of this process and meet here instead of in MindSpore."""

    count: int = 2
    parts: dict[int, np.ndarray] = field(default_factory=dict)
    meeting: threading.Barrier = field(default_factory=lambda: threading.Barrier(2))

    def total(self, values: np.ndarray) -> np.ndarray:
        self.parts[self.index] = values
        self.meeting.wait(60)
        summed = np.sum(list(self.parts.values()), 0, dtype=np.float32)
        self.meeting.wait(60)
        return summed


def resumed_by_two(one: Path, other: Path, resume: str = "auto") -> list[str]:
    """What each of two ranks, which have a folder each, goes on from, "" for nothing, or the error that ends it."""
    first = RankOfThread()

    def opened(rank: Rank, folder: Path) -> str:
        try:
            metadata = {"model": "toy", "size": fault_training.SIZE}
            with open_run(RunSettings(folder, NAMES, BEST, metadata, "", resume), rank) as run:
                return run.resumed.path.name if run.resumed else ""
        except ZooError as error:
            return f"error: {error}"

    with ThreadPoolExecutor(2) as pool:
        ranks = first, RankOfThread(1, parts=first.parts, meeting=first.meeting)
        return list(pool.map(opened, ranks, (one, other)))


def test_ranks_go_on_from_one_state(undisturbed, tmp_path):
    one, other = (shutil.copytree(undisturbed, tmp_path / name) for name in ("one", "other"))
    assert resumed_by_two(one, other) == [LAST, LAST]
    assert resumed_by_two(one, one) == [LAST, LAST], "on a shared folder"
    assert resumed_by_two(tmp_path / "new", tmp_path / "empty") == ["", ""]


@pytest.mark.parametrize("harm", ["missing", "older", "of another run"])
def test_ranks_that_would_go_on_from_different_states_all_stop(undisturbed, tmp_path, harm):
    """As on several servers, of which only the first one's folder is written."""
    one, other = (shutil.copytree(undisturbed, tmp_path / name) for name in ("one", "other"))
    before = sorted(path.name for path in one.iterdir())
    if harm == "missing":
        shutil.rmtree(other)
    elif harm == "older":
        (other / LAST).unlink()
    else:
        stored = checkpoint.read(other / LAST)
        changed = {name: array + 1 for name, array in stored.arrays.items()}
        checkpoint.save(other / LAST, changed, {key: stored.meta[key] for key in stored.meta if key != "entries"})
    found = resumed_by_two(one, other)
    assert found[0] == found[1]
    assert found[0].startswith("error: the ranks would go on from different states (rank 0 from 6 epochs and 0 steps,")
    assert found[0].endswith("; copy rank 0's run folder to the other servers or use one that they share")
    assert sorted(path.name for path in one.iterdir()) == before


def test_an_evaluation_that_could_read_nothing_is_no_score_of_zero(tmp_path, monkeypatch):
    monkeypatch.setattr(fault_training.loop, "Score", lambda value, values, samples: Score(value, values, 0))
    with pytest.raises(ZooError, match="the evaluation after epoch 1 could read nothing"):
        fault_training.train(tmp_path / "run")


def test_the_toy_notices_a_step_that_is_lost_or_repeated(undisturbed, tmp_path, monkeypatch):
    """Else the tests above would prove nothing."""
    epoch = fault_training.loop._Epoch
    monkeypatch.setattr(epoch, "_stepped", without_its_third_step(epoch._stepped))
    fault_training.train(tmp_path / "run")
    with pytest.raises(AssertionError):
        assert_same(tmp_path / "run" / LAST, undisturbed / LAST)


def without_its_third_step(original):
    def stepped(self, epoch, index, rate, inputs):
        return original(self, epoch, index, rate * (index != 2), inputs)

    return stepped


def test_a_run_that_can_only_go_on_leaves_a_folder_without_a_whole_checkpoint_as_it_is(tmp_path):
    (tmp_path / f"{NAMES.prefix}-1_4.ckpt").write_bytes(b"cut")
    (tmp_path / "config.yaml").write_text("model: toy\n")
    settings = RunSettings(tmp_path, NAMES, BEST, {}, "", "auto", needs_checkpoint="x.ckpt is no file; name another")
    with pytest.raises(ZooError, match="no checkpoint in .* can be used, and x.ckpt is no file; name another"):
        open_run(settings, Rank()).__enter__()
    assert (tmp_path / "config.yaml").read_text() == "model: toy\n"
    assert (tmp_path / f"{NAMES.prefix}-1_4.ckpt").is_file()


def test_saves_between_epochs_that_are_due_are_not_counted_as_epochs(tmp_path):
    weight = ms.Parameter(ms.Tensor(np.zeros(3, np.float32)), name="weight")
    schedule = Schedule(6, 4, 1, 4, np.zeros(24), save_epochs=2, save_steps=4)
    with open_run(RunSettings(tmp_path / "run", NAMES, BEST, {}, "", keep=2), Rank()) as run:
        for epoch in range(1, 7):
            run.save([weight], Position(epoch=epoch), schedule)
    left = sorted(path.name for path in (tmp_path / "run").glob("*.ckpt"))
    assert left == [f"{NAMES.prefix}-4_4.ckpt", f"{NAMES.prefix}-6_4.ckpt"]
