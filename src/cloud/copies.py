"""Copies between object storage and folders: in parallel, resumed where they stopped, compared before they count."""

from __future__ import annotations

import errno
import hashlib
import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from src.cloud.storage import CHUNK, Remote, StorageError, Store, below, require_inside
from src.engine.errors import ZooError

THREADS = 8
ATTEMPTS = 6
PAUSE = 2.0  # seconds before the second attempt, twice as many before each further one
REPORT_EVERY = 10.0  # seconds
SPARE = 64 * 2**20  # bytes that a copy leaves free on the disk
MODELS = (".ckpt", ".onnx")  # all of one network have the same size, so the size says nothing


def md5_of(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as handle:
        while data := handle.read(CHUNK):
            digest.update(data)
    return digest.hexdigest()


def is_same(path: Path, store: Store, url: str, remote: Remote) -> bool:
    """Whether a local file has the size, and the checksum where the store has one, of a stored file."""
    if not path.is_file() or path.stat().st_size != remote.size:
        return False
    return not remote.md5 or md5_of(path) == remote.md5 or store.is_encrypted(url)


def may_stay(path: Path, store: Store, url: str, remote: Remote) -> bool:
    """Whether a file that is here already need not be copied; of networks only the same checksum shows that."""
    if not is_same(path, store, url, remote):
        return False
    return not path.name.endswith(MODELS) or (bool(remote.md5) and not store.is_encrypted(url))


def require_room(folder: Path, needed: int, what: str) -> None:
    """Raise ZooError where `needed` bytes do not fit; nothing has been written then."""
    free = shutil.disk_usage(folder).free
    if needed and needed + SPARE > free:
        raise ZooError(
            f"{what} needs {size(needed)} and {folder} has {size(free)} left; make room or use a larger disk"
        )


def size(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


class Progress:
    """Says how far a long copy is, every few seconds."""

    def __init__(self, what: str, total: int, say: Callable[[str], None]):
        self._what, self._total, self._say = what, total, say
        self._done, self._said = 0, time.monotonic()

    def add(self, count: int) -> None:
        self._done += count  # by several threads, so it may be a little behind
        if time.monotonic() - self._said > REPORT_EVERY:
            self._said = time.monotonic()
            self._say(f"{self._what}: {size(self._done)} of {size(self._total)}")


def download(
    store: Store,
    url: str,
    files: Mapping[str, Remote],
    folder: Path,
    say: Callable[[str], None],
    heartbeat: Callable[[], None],
) -> None:
    """Copy the named files below `url` into `folder`. Those that are there and right stay as they are.

    A copy that was interrupted goes on where it stopped; no file has its name before it has been compared.
    """
    targets = {name: folder / require_inside(name or url.rstrip("/").rpartition("/")[2]) for name in files}
    folder.mkdir(parents=True, exist_ok=True)
    missing = []
    for name, remote in files.items():
        if not may_stay(targets[name], store, below(url, name), remote):
            missing.append(name)
        heartbeat()
    total = sum(files[name].size for name in missing)
    require_room(folder, total, f"copying {url}")
    progress = Progress(f"copying {url}", total, say)

    def moved(count: int) -> None:
        progress.add(count)
        heartbeat()

    with ThreadPoolExecutor(THREADS, thread_name_prefix="copy") as pool:
        waiting = [
            pool.submit(download_file, store, below(url, name), files[name], targets[name], moved) for name in missing
        ]
        try:
            for done in as_completed(waiting):
                done.result()
                heartbeat()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    say(f"copied {len(missing)} of {len(files)} files ({size(total)}) from {url} to {folder}")


def download_file(store: Store, url: str, remote: Remote, path: Path, moved: Callable[[int], None]) -> None:
    """Copy one file beside its final name, compare it, and then give it that name."""
    content = hashlib.sha256(f"{remote.size} {remote.tag}".encode()).hexdigest()[:12]
    part = path.with_name(f".{path.name}.{content}.part")  # of another content, so a changed file is begun anew
    failure: StorageError | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for attempt in range(ATTEMPTS):
            if failure:
                time.sleep(PAUSE * 2 ** (attempt - 1))
            done = part.stat().st_size if part.exists() else 0
            if not store.resumes or done >= remote.size:
                part.unlink(missing_ok=True)
                done = 0
            part.touch()
            try:
                store.fetch(url, part, done, moved)
                failure = None
            except StorageError as error:
                failure = error
                if not error.again:
                    part.unlink()
                if is_disk_full(error.__cause__) or not error.again:
                    raise
            if is_same(part, store, url, remote):
                part.replace(path)
                return
    except OSError as error:
        raise ZooError(f"cannot write {path}: {error.strerror}; make room or choose another folder") from error
    raise failure or ZooError(
        f"{url} arrived {ATTEMPTS} times with another size or checksum than the store lists; upload it again"
    )


def is_disk_full(error: BaseException | None) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def upload(store: Store, path: Path, url: str) -> Remote:
    """Store one file and compare what the store then has; several attempts. Raises StorageError."""
    for attempt in range(ATTEMPTS):
        try:
            store.put(path, url)
            stored = store.list(url).get("")
            if stored is not None and is_same(path, store, url, stored):
                return stored
            failure = StorageError("write", url, "the store has another size or checksum than the file")
        except StorageError as error:
            failure = error
            if not error.again:
                break
        if attempt + 1 < ATTEMPTS:
            time.sleep(PAUSE * 2**attempt)
    raise failure
