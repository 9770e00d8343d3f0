"""A run folder: who owns it, what it continues from, and how its state is written and restored."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import platform
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import nn

from src.engine import precision
from src.engine.errors import ZooError
from src.engine.io import checkpoint, files, journal
from src.engine.io.checkpoint import Checkpoint, Names
from src.engine.io.journal import Journal
from src.engine.loop import DIVERGED, Position, Schedule
from src.engine.ranks import Rank

CONFIG, VERSIONS, CURVES = "config.yaml", "versions.json", "curves.png"
PACKAGES = ("mindspore", "numpy", "opencv-python-headless", "pillow", "onnx", "onnxruntime")


@dataclass(frozen=True)
class RunSettings:
    """What a run folder holds and what it may go on from."""

    folder: Path
    names: Names
    best_file: str
    metadata: dict  # travels with every checkpoint, and has to be the same in the one that is resumed
    config_text: str
    resume: str = ""  # "auto" or a file
    started_from: str = ""  # a file; where it lies in the folder it stays there, unless the run takes it for its own
    needs_checkpoint: str = ""  # why this run can only go on; the sentence of the error where there is no checkpoint
    other_results: tuple[str, ...] = ()  # that an earlier run may have left and a new one moves aside
    save: bool = True
    save_best: bool = True
    keep: int = 1  # epochs


@dataclass(frozen=True)
class Run:
    """An open run folder; `resumed` is what to continue from."""

    settings: RunSettings
    journal: Journal
    rank: Rank
    resumed: Checkpoint | None
    middles: set[Path]  # checkpoints that go once there is a newer one: between those that save_epochs asks for

    @property
    def folder(self) -> Path:
        return self.settings.folder

    @property
    def writes(self) -> bool:
        """Only the first rank does."""
        return self.rank.is_first

    def save(self, state: Iterable[ms.Parameter], position: Position, schedule: Schedule) -> None:
        """Write the checkpoint of `position` and remove those that are no longer kept.

        Raises ZooError where the state is not finite or cannot be written.
        """
        if not (self.writes and self.settings.save):
            return
        names, steps = self.settings.names, schedule.steps_per_epoch
        epoch, step = (position.epoch + 1, position.step) if position.step else (position.epoch, steps)
        path = self.folder / names.of(epoch, step, steps)
        meta = {**self.settings.metadata, "position": dataclasses.asdict(position), "epoch_of": epoch_of(schedule)}
        arrays = checkpoint.arrays_of(state)
        require_finite(arrays, f"after epoch {epoch}, step {step}; {DIVERGED}")
        checkpoint.save(path, arrays, meta)
        if position.step or not schedule.is_due(position.epoch):
            self.middles.add(path)
        removed = names.remove_old(self.folder, self.settings.keep, self.middles)
        if removed:
            self.journal.line(f"removed {', '.join(removed)}, which this run no longer keeps")

    def save_best(self, net: nn.Cell, score: float) -> None:
        """Keep the weights of `net` as the best so far, if the run keeps any."""
        if self.settings.save and self.settings.save_best:
            self.save_weights(self.settings.best_file, checkpoint.arrays_of(net.get_parameters()), score)

    def save_weights(
        self, file: str, weights: dict, score: float, where: str = f"after an evaluation; {DIVERGED}"
    ) -> None:
        """Write weights alone (no optimizer state), for evaluation and export; `where` as in require_finite."""
        if self.writes:
            require_finite(weights, where)
            checkpoint.save(self.folder / file, weights, {**self.settings.metadata, "score": score})

    def restore(self, state: Iterable[ms.Parameter], schedule: Schedule) -> Position:
        """Put the state of the checkpoint that is continued into the parameters; the start position without one."""
        if self.resumed is None:
            return Position()
        meta, path = self.resumed.meta, self.resumed.path
        position = Position(**meta["position"])
        if position.step and meta["epoch_of"] != epoch_of(schedule):
            raise ZooError(
                f"{path} is from the middle of an epoch with {meta['epoch_of']} and now there are "
                f"{epoch_of(schedule)}; resume with the data and batch_size it was made with"
            )
        checkpoint.assign(state, self.resumed.arrays, str(path))
        self.journal.line(f"resumed from {path}: {position.epoch} epochs and {position.step} steps are done")
        if not (self.folder / self.settings.best_file).is_file():
            position = dataclasses.replace(position, best=-1.0)  # there is no best file yet that has to be beaten
        return position


def epoch_of(schedule: Schedule) -> dict[str, int]:
    """What the order of the data within an epoch depends on, beside the seed."""
    return {"samples": schedule.samples, "images_per_step": schedule.images_per_step}


@contextlib.contextmanager
def open_run(settings: RunSettings, rank: Rank) -> Iterator[Run]:
    """Lock the folder, find what to resume or move an earlier run's files aside, open the journal.

    Only the first rank writes.
    """
    folder, names = settings.folder, settings.names
    writes = rank.is_first
    with contextlib.ExitStack() as stack:
        if writes:
            stack.enter_context(files.owned_folder(folder))
        resumed = None
        if settings.resume == "auto":
            resumed = names.newest_good(folder, print)
        elif settings.resume:
            resumed = checkpoint.read(settings.resume)
        if resumed is not None:
            require_same(resumed, settings.metadata)
        require_one_state(resumed, rank)  # and all have seen the folder as it was
        if resumed is None and settings.needs_checkpoint:
            raise ZooError(f"no checkpoint in {folder} can be used, and {settings.needs_checkpoint}")
        if writes:
            old = _not_of_this_run(settings, resumed)
            old += () if resumed else settings.other_results
            moved = files.set_aside(folder, old, _still_needed(settings))
            if moved:
                print(f"files of an earlier run moved to {moved}")
        log = stack.enter_context(Journal(folder if writes else None))
        if writes:
            files.write_text(folder / CONFIG, settings.config_text)
            files.write_text(folder / VERSIONS, json.dumps(versions(), indent=2) + "\n")
        middles = {resumed.path} if resumed is not None and resumed.meta["position"]["step"] else set()
        yield Run(settings, log, rank, resumed, middles)


def require_finite(arrays: dict[str, np.ndarray], where: str) -> None:
    """A run would go on for ever from weights that are not finite; a loss shows them one step later.

    `where` ends the error's sentence: where they were found, and what to do.
    """
    for name, array in arrays.items():
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise ZooError(f"'{name}' is not finite {where}")


def require_same(resumed: Checkpoint, metadata: dict) -> None:
    """A run goes on only with the settings that its state belongs to."""
    if "position" not in resumed.meta:
        raise ZooError(f"{resumed.path} holds weights only, no state of a run; start a new run from it")
    for key, value in metadata.items():
        before = resumed.meta.get(key, value)  # a key that is younger than the checkpoint says nothing
        if before != value:
            raise ZooError(f"{resumed.path} was made with another {key} ({before}); give the same or start a new run")


def require_one_state(resumed: Checkpoint | None, rank: Rank) -> None:
    """Raise ZooError on every rank unless all go on from the same bytes, or all start anew; waits for all.

    Each server has read its own folder, and where folders are not shared only the first server's is written: gradients
    of different states would be averaged and nobody would notice.
    """
    if rank.count == 1:
        return
    state = [0, 0, 0, 0]
    if resumed is not None:
        position = resumed.meta["position"]
        state = [1, position["epoch"], position["step"], zlib.crc32(resumed.path.read_bytes())]
    states = rank.gather(np.array(state, np.int64))
    others = np.flatnonzero((states != states[0]).any(1))
    if len(others):
        other = others[0]
        raise ZooError(
            f"the ranks would go on from different states (rank 0 {_said(states[0])}, rank {other} "
            f"{_said(states[other])}); copy rank 0's run folder to the other servers or use one that they share"
        )


def _said(state: np.ndarray) -> str:
    """What a rank goes on from: (found, epochs, steps, checksum)."""
    found, epochs, steps, checksum = state.tolist()
    return f"from {epochs} epochs and {steps} steps, checksum {checksum:08x}" if found else "anew"


def _not_of_this_run(settings: RunSettings, resumed: Checkpoint | None) -> list[str]:
    """Files of a run that is not continued, or what came after the point it is continued from.

    The feature cache stays, its keys keep it right.
    """
    folder, best_file = settings.folder, settings.best_file
    ordered = [path.name for *_, path in settings.names.find(folder)]
    if resumed is None or resumed.path.resolve().parent != folder.resolve():
        return [CONFIG, VERSIONS, CURVES, journal.LOG, journal.METRICS, journal.EVENTS, best_file, *ordered]
    later = ordered[ordered.index(resumed.path.name) + 1 :] if resumed.path.name in ordered else []
    best = folder / best_file
    if later and best.is_file() and checkpoint.read(best).meta.get("score", 2) > resumed.meta["position"]["best"]:
        later.append(best_file)
    return later


def _still_needed(settings: RunSettings) -> set[str]:
    """The file a run starts from, if it lies in the run folder and is no checkpoint that `auto` would take."""
    folder, path = settings.folder, Path(settings.started_from).expanduser().resolve()
    taken = {found.resolve() for *_, found in settings.names.find(folder)}
    return {path.name} if settings.started_from and path.parent == folder.resolve() and path not in taken else set()


def versions() -> dict[str, str]:
    """What the run was made with, the precision of its device included."""
    found = {"python": platform.python_version(), "machine": platform.platform()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return {**found, **precision.in_force()}
