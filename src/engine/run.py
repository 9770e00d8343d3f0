"""A run folder: who owns it, what it continues from, and how its state is written and restored."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import platform
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import mindspore as ms

from src.engine import checkpoint, files, journal
from src.engine.checkpoint import Checkpoint, Names
from src.engine.errors import ZooError
from src.engine.journal import Journal
from src.engine.loop import Position

CONFIG, VERSIONS, CURVES = "config.yaml", "versions.json", "curves.png"
PACKAGES = ("mindspore", "numpy", "opencv-python-headless", "pillow", "onnx", "onnxruntime")


@dataclass(frozen=True)
class Run:
    """An open run folder; `resumed` is what to continue from, `writes` is False on all ranks but the first."""

    folder: Path
    names: Names
    journal: Journal
    resumed: Checkpoint | None
    writes: bool

    def save(
        self, state: Iterable[ms.Parameter], position: Position, steps_per_epoch: int, keep: int, about: dict
    ) -> None:
        """Write the checkpoint of `position` and remove those that are no longer kept."""
        if not self.writes:
            return
        epoch, step = (position.epoch + 1, position.step) if position.step else (position.epoch, steps_per_epoch)
        meta = {**about, "position": dataclasses.asdict(position), "steps_per_epoch": steps_per_epoch}
        path = self.folder / self.names.of(epoch, step, steps_per_epoch)
        checkpoint.save(path, checkpoint.arrays_of(state), meta)
        self.names.remove_old(self.folder, keep, steps_per_epoch)

    def save_weights(self, file: str, weights: dict, about: dict) -> None:
        """Write weights alone (no optimizer state), for evaluation and export."""
        if self.writes:
            checkpoint.save(self.folder / file, weights, about)

    def restore(self, state: Iterable[ms.Parameter], steps_per_epoch: int, about: dict) -> Position:
        """Put the state of the checkpoint that is continued into the parameters; the start position without one."""
        if self.resumed is None:
            return Position()
        meta, path = self.resumed.meta, str(self.resumed.path)
        if "position" not in meta:
            raise ZooError(f"{path} holds weights only, no state of a run; use it as --pretrain_ckpt")
        for key in about:
            if meta[key] != about[key]:
                raise ZooError(
                    f"{path} was made with another {key} ({meta[key]}); resume with the same, or start a new run"
                )
        position = Position(**meta["position"])
        if position.step and meta["steps_per_epoch"] != steps_per_epoch:
            raise ZooError(
                f"{path} was saved in the middle of an epoch of {meta['steps_per_epoch']} steps and an epoch now has "
                f"{steps_per_epoch}; use the data and batch_size it was made with"
            )
        checkpoint.assign(state, self.resumed.arrays, path)
        self.journal.line(f"resumed from {path}: {position.epoch} epochs and {position.step} steps are done")
        return position


@contextlib.contextmanager
def open_run(path: str, names: Names, resume: str, config_text: str, writes: bool = True) -> Iterator[Run]:
    """Lock the folder, find what to resume or move an earlier run's files aside, open the journal."""
    folder = Path(path).expanduser()
    with contextlib.ExitStack() as stack:
        if writes:
            stack.enter_context(files.owned_folder(folder))
        resumed = None
        if resume == "auto":
            resumed = names.newest_good(folder, print)
        elif resume:
            resumed = checkpoint.read(resume)
        if writes:
            moved = files.set_aside(folder, _not_of_this_run(folder, names, resumed))
            if moved:
                print(f"files of an earlier run moved to {moved}")
        log = stack.enter_context(Journal(folder if writes else None))
        if writes:
            files.write_text(folder / CONFIG, config_text)
            files.write_text(folder / VERSIONS, json.dumps(versions(), indent=2) + "\n")
        yield Run(folder, names, log, resumed, writes)


def _not_of_this_run(folder: Path, names: Names, resumed: Checkpoint | None) -> list[str]:
    """Files of a run that is not continued, or checkpoints from after the point it is continued from.

    The feature cache stays, its keys keep it right.
    """
    if resumed is None or resumed.path.resolve().parent != folder.resolve():
        fixed = [CONFIG, VERSIONS, CURVES, journal.LOG, journal.METRICS, journal.EVENTS]
        return fixed + [path.name for path in folder.glob("*.ckpt")]
    ordered = [path.name for _, _, path in names.find(folder)]
    return ordered[ordered.index(resumed.path.name) + 1 :] if resumed.path.name in ordered else []


def versions() -> dict[str, str]:
    """What the run was made with."""
    found = {"python": platform.python_version(), "machine": platform.platform()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found
