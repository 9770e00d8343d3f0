"""A folder's new files go to object storage while the job runs: checkpoints at once, logs every minute."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from src.cloud.copies import is_same, upload
from src.cloud.storage import Remote, StorageError, Store, below
from src.engine.errors import ZooError

WHOLE = ".ckpt"  # these appear whole and never change, so a link is a copy
NOT_RESULTS = ("features", "previous")  # a cache, and what an earlier run has uploaded already
UPLOADING = ".uploading-"  # prefix of the folders of snapshots
LOOK_EVERY = 2.0  # seconds
LOGS_EVERY = 60.0  # seconds between two copies of a growing log
State = tuple[int, int]  # size and time of a file when it was uploaded


class Mirror:
    """Uploads the files of `folder` that are new or changed to `url`.

    `stored` is what is there already of a job that goes on; with None, what the folder holds now is of another job.
    """

    def __init__(
        self, store: Store, folder: Path, url: str, say: Callable[[str], None], stored: dict[str, Remote] | None
    ):
        self._store, self._folder, self._url, self._say = store, folder, url, say
        self._logs_uploaded = time.monotonic()
        for left in folder.glob(f"{UPLOADING}*"):  # by a job that was killed
            shutil.rmtree(left, ignore_errors=True)
        self._uploaded: dict[str, State] = {
            name: state for name, state in self._present().items() if stored is None or self._is_stored(name, stored)
        }

    def _is_stored(self, name: str, stored: dict[str, Remote]) -> bool:
        return name in stored and is_same(self._folder / name, self._store, below(self._url, name), stored[name])

    def _present(self) -> dict[str, State]:
        """The files below the folder; hidden ones are unfinished or locks."""
        found = {}
        for where, folders, names in os.walk(self._folder):
            folders[:] = [name for name in folders if not name.startswith(".") and name not in NOT_RESULTS]
            for name in names:
                path = Path(where, name)
                with contextlib.suppress(FileNotFoundError):  # a checkpoint that is no longer kept
                    if not name.startswith(".") and path.is_file():
                        about = path.stat()
                        found[path.relative_to(self._folder).as_posix()] = about.st_size, about.st_mtime_ns
        return found

    def upload_new(self, everything: bool = False) -> list[StorageError]:
        """Upload what has changed, the newest checkpoint first; returns what went wrong.

        Without a new checkpoint, logs wait until a minute has passed or `everything` is asked for.
        """
        changed = {name: state for name, state in self._present().items() if self._uploaded.get(name) != state}
        whole = sorted((name for name in changed if name.endswith(WHOLE)), key=lambda name: -changed[name][1])
        if not (whole or everything or time.monotonic() - self._logs_uploaded > LOGS_EVERY):
            return []
        failures = []
        for name in [*whole, *(name for name in changed if name not in whole)]:
            try:
                self._upload(name)
                self._uploaded[name] = changed[name]
            except FileNotFoundError:  # no longer kept
                continue
            except StorageError as error:
                failures.append(error)
                if error.again:  # the store cannot be reached, and the other files would wait as long for it
                    break
            except OSError as error:
                failures.append(StorageError("read", str(self._folder / name), error))
        self._logs_uploaded = time.monotonic()
        return failures

    def _upload(self, name: str) -> None:
        """Upload a snapshot, for a log grows and an old checkpoint may be removed meanwhile."""
        with tempfile.TemporaryDirectory(prefix=UPLOADING, dir=self._folder) as folder:
            source, snapshot = self._folder / name, Path(folder) / Path(name).name
            try:
                if not name.endswith(WHOLE):
                    raise OSError
                os.link(source, snapshot)
            except OSError:  # no links on this file system
                shutil.copyfile(source, snapshot)
            upload(self._store, snapshot, below(self._url, name))

    def run(self, ended: threading.Event) -> None:
        """Look for news until the job has ended. What fails is said and tried again."""
        while not ended.wait(LOOK_EVERY):
            for error in self.upload_new():
                self._say(f"{error}; the file stays in {self._folder} and is sent again")


@contextlib.contextmanager
def mirrored(
    store: Store, folder: Path, url: str, say: Callable[[str], None], stored: dict[str, Remote] | None
) -> Iterator[None]:
    """While this is open, `url` follows `folder`; in the end all is there, or a ZooError says what is not.

    `stored` is as in `Mirror`.
    """
    mirror, ended = Mirror(store, folder, url, say, stored), threading.Event()
    thread = threading.Thread(target=mirror.run, args=(ended,), name="upload", daemon=True)
    thread.start()

    def finish() -> str:
        """What is left to say when the last files have been uploaded."""
        ended.set()
        thread.join()
        failures = mirror.upload_new(everything=True)
        return f"not all results were stored, all are in {folder}; {failures[0]}" if failures else ""

    try:
        yield
    except BaseException:
        say(finish() or f"results are in {url}")  # and the job's own error stays the error
        raise
    missing = finish()
    if missing:
        raise ZooError(missing)
    say(f"results are in {url}")
