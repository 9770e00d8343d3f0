"""Files that appear whole or not at all, locks, and a run folder that one run owns. No MindSpore here."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from src.engine.errors import ZooError, first_line

FILE_MODE = 0o644
UNFINISHED = ".writing-"  # prefix of the temporary folders that replace_file works in
FEATURES, ARCHIVE_INDEXES = "features", "archives"  # sub-folders of a run in which it writes files
PREVIOUS = "previous"  # sub-folder that keeps the files of earlier runs


def checkpoint_number(name: str, prefix: str = "") -> tuple[str, int, float] | None:
    """(prefix, epoch, step) of a checkpoint's file name, which orders a run's; one without step is a whole epoch.

    None for other names; without `prefix`, any.
    """
    match = re.fullmatch(rf"({re.escape(prefix) or '[^/]+?'})[-_](\d+)(?:_(\d+))?\.ckpt", name)
    return (match[1], int(match[2]), float(match[3] or "inf")) if match else None


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write(temporary path)`, flush the result to disk and move it to `path` in one step.

    The temporary file lies in the same folder and has the same suffix. Raises ZooError where the disk is full or the
    folder cannot be written; `path` then still holds what it held.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=path.parent) as folder:
            temporary = Path(folder) / path.name
            write(temporary)
            temporary.chmod(FILE_MODE)
            with temporary.open("rb") as handle:
                os.fsync(handle.fileno())
            temporary.replace(path)
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise ZooError(f"cannot write {path}: {reason}; make room or choose another folder") from error


def files_below(folder: Path, leave_out: Path | None = None) -> list[Path]:
    """All files below a folder, sorted; without hidden files and folders and the folder `leave_out`.

    Links to folders are followed; a folder that is reached twice is listed once.
    """
    found, seen = [], {folder.resolve(), leave_out and leave_out.resolve()}
    for where, folders, names in os.walk(folder, followlinks=True):
        targets = {name: (Path(where) / name).resolve() for name in sorted(folders) if name[0] != "."}
        folders[:] = [name for name, target in targets.items() if target not in seen]
        seen.update(targets.values())
        found += [Path(where) / name for name in names if name[0] != "."]
    return sorted(found)


def write_text(path: Path, text: str) -> None:
    replace_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


@contextlib.contextmanager
def locked(path: Path, while_taken: Callable[[], object] | None = None) -> Iterator[None]:
    """Hold the lock of a file, which is made where it is missing; the lock dies with the process.

    As long as another process holds it, this waits, or calls `while_taken` again and again, which pauses or raises.
    Raises OSError where the file cannot be opened for writing (what NFS asks of a lock) or locks do not exist.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, FILE_MODE)
    try:
        if while_taken is None:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        else:
            while not _taken_at_once(descriptor):
                while_taken()
        yield
    finally:
        os.close(descriptor)


def _taken_at_once(descriptor: int) -> bool:
    """Whether the lock was free, and is held from now on."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False


@contextlib.contextmanager
def owned_folder(path: Path) -> Iterator[Path]:
    """Make the folder and hold its lock; a second run on the same folder is refused."""

    def refuse() -> None:
        raise ZooError(f"another run is writing to {path}; wait for it or choose another --save_checkpoint_path")

    with contextlib.ExitStack() as held:
        try:
            path.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(path / ".lock", refuse))
        except OSError as error:
            raise ZooError(
                f"cannot write to {path}: {error.strerror}; choose another --save_checkpoint_path"
            ) from error
        # By a run that was killed; nobody else writes here now. Other sub-folders may belong to programs that run.
        for place in (path, *(path / name for name in (FEATURES, ARCHIVE_INDEXES))):
            for left in place.glob(f"{UNFINISHED}*"):
                shutil.rmtree(left, ignore_errors=True)
        yield path


def set_aside(folder: Path, names: list[str], kept: set[str]) -> Path | None:
    """Move the named entries of `folder` to previous/<n>/, so that a new run does not lose old results.

    Those in `kept` are copied instead, because they are still needed where they are.
    """
    present = [name for name in names if (folder / name).exists()]
    if not present:
        return None
    taken = [int(entry.name) for entry in (folder / PREVIOUS).glob("*") if entry.name.isdigit()]
    target = folder / PREVIOUS / str(max(taken, default=0) + 1)
    target.mkdir(parents=True)
    for name in present:
        if name in kept:
            shutil.copy2(folder / name, target / name)
        else:
            (folder / name).rename(target / name)
    return target
