"""ModelArts' own file library. It is part of the platform's images and not on PyPI (the `moxing` there is another)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from src.cloud.storage import Remote, StorageError, below
from src.engine.errors import ZooError

LOOK_EVERY = 5.0  # seconds
THREADS = 16  # a size is one request per file


def watch(path: Path, moved: Callable[[int], None], ended: threading.Event) -> None:
    """Tell how many bytes of a file arrive: moxing says nothing during a copy, which may take an hour.

    It may write under another name first, so a folder that grows is a sign of progress too, of 0 bytes of this file.
    The last look is after the end: all bytes are counted, however short the copy was and whenever this thread ran.
    """
    counted, folder, last = 0, 0, False
    while not last:
        last = ended.wait(LOOK_EVERY)
        arrived, now = size(path), sum(map(size, path.parent.glob("*")))
        if arrived > counted or now > folder:
            moved(max(arrived - counted, 0))
        counted, folder = max(arrived, counted), now


def size(path: Path) -> int:
    """Bytes of a file, 0 where it was renamed meanwhile."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


class MoxingStore:
    """A Store on `mox.file`, which knows sizes but no checksums, and takes credentials from the platform."""

    resumes = False

    def __init__(self):
        import moxing

        if not hasattr(moxing, "file"):
            raise ZooError(
                "the installed moxing is not ModelArts' library; uninstall it and use requirements-cloud.txt"
            )
        self._file = moxing.file

    def list(self, url: str) -> dict[str, Remote]:
        try:
            if not self._file.exists(url):
                return {}
            if not self._file.is_directory(url):
                return {"": Remote(self._file.get_size(url))}
            names = [name for name in self._file.list_directory(url, recursive=True) if not name.endswith("/")]
            folders = {str(parent) for name in names for parent in Path(name).parents}
            files = [name for name in names if name not in folders]
            with ThreadPoolExecutor(THREADS) as pool:
                sizes = dict(zip(files, pool.map(lambda name: self._size(below(url, name)), files)))
            return {name: Remote(size) for name, size in sizes.items() if size is not None}
        except Exception as error:
            raise StorageError("list", url, error) from error

    def _size(self, url: str) -> int | None:
        """Bytes of a file; None of a folder, which an empty listing cannot be told from otherwise."""
        size = self._file.get_size(url)
        return None if not size and self._file.is_directory(url) else size

    def fetch(self, url: str, path: Path, offset: int, moved: Callable[[int], None]) -> None:
        ended = threading.Event()
        watcher = threading.Thread(target=watch, args=(path, moved, ended), daemon=True)
        watcher.start()
        try:
            self._file.copy(url, str(path))
        except Exception as error:
            raise StorageError("read", url, error) from error
        finally:
            ended.set()
            watcher.join()

    def put(self, path: Path, url: str) -> None:
        try:
            self._file.copy(str(path), url)
        except Exception as error:
            raise StorageError("write", url, error) from error

    def is_encrypted(self, url: str) -> bool:
        return False
