"""Object storage behind one small interface, `Store`, and its addresses; stores.py opens one."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from src.cloud.job_environment import redacted
from src.engine.errors import ZooError, first_line

SCHEMES = ("obs", "s3")
CHUNK = 16 * 2**20  # bytes that are asked for at a time
MD5 = re.compile(r"[0-9a-f]{32}")


class StorageError(ZooError):
    """The store could not do what was asked; `again` says whether trying again may help."""

    def __init__(
        self,
        what: str,
        url: str,
        error: BaseException | str,
        again: bool = True,
        remedy: str = "check the address, the permissions and the network",
    ):
        text = redacted(first_line(error) if isinstance(error, BaseException) else error)
        name = f"{type(error).__name__}: " if isinstance(error, BaseException) else ""
        super().__init__(f"cannot {what} {url} ({name}{text}); {remedy}")
        self.again = again and not isinstance(error, (FileNotFoundError, PermissionError))


@dataclass(frozen=True)
class Remote:
    """A stored file. `tag` changes with its content ("": the store has none); often it is the content's MD5."""

    size: int
    tag: str = ""

    @property
    def md5(self) -> str:
        return self.tag if MD5.fullmatch(self.tag) else ""


class Store(Protocol):
    """What the copies need. URLs are obs://bucket/key or s3://bucket/key. Every method raises StorageError."""

    resumes: bool  # whether fetch can start in the middle of a file

    def list(self, url: str) -> dict[str, Remote]:
        """The files below a folder by relative path, {"": file} where `url` is one, {} where there is nothing."""

    def fetch(self, url: str, path: Path, offset: int, moved: Callable[[int], None]) -> None:
        """Append what follows the first `offset` bytes to the file at `path`; `moved` hears of every chunk's bytes."""

    def put(self, path: Path, url: str) -> None:
        """Store the file at `path` under `url`."""

    def is_encrypted(self, url: str) -> bool:
        """Whether the store encrypts the file with a key, so that its tag is no checksum of the content."""


def is_remote(url: str) -> bool:
    """Whether `url` is in object storage; anything else is a plain path."""
    scheme, mark, _ = url.partition("://")
    if mark and scheme not in SCHEMES:
        raise ZooError(f"{url} is neither a folder nor an address that begins with obs:// or s3://; correct it")
    return bool(mark)


def bucket_and_key(url: str) -> tuple[str, str]:
    """obs://bucket/a/b/ -> ("bucket", "a/b")."""
    bucket, _, key = url.partition("://")[2].partition("/")
    if not bucket:
        raise ZooError(f"{url} names no bucket; give obs://BUCKET/FOLDER or s3://BUCKET/FOLDER")
    return bucket, key.strip("/")


def below(url: str, name: str) -> str:
    """The URL of a file that `list` named."""
    return f"{url.rstrip('/')}/{name}" if name else url


def require_inside(name: str) -> PurePosixPath:
    """The relative path of a stored file or a zip's member, refused where it would leave the folder it goes to."""
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise ZooError(f"{name!r} would leave the folder that it is copied to; rename it")
    return path
