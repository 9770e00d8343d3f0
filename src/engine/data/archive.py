"""A .tar or .zip file read at random without unpacking it: its index, and a source of its members' bytes.

The index (names, places, sizes) is made by reading the file's headers once. Where a run folder is given it is kept
there, because that takes minutes for a million members of a .tar on a network file system. No MindSpore here.
"""

from __future__ import annotations

import hashlib
import os
import struct
import weakref
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.engine.data.archive_index import Index, read_members
from src.engine.data.images import BadImage
from src.engine.data.source import Indices, rows_to_read
from src.engine.errors import ZooError, first_line
from src.engine.io import files

LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a member of a .zip: mark, then the lengths of its name and extra field
LOCAL_MARK = b"PK\x03\x04"
EXTRA = 64  # bytes read for the extra field, which is mostly shorter; a longer one costs a second read
MOST_BYTES = 2**30  # of a member that is read; no picture is larger


@dataclass(frozen=True)
class IndexFolder:
    """Where indexes are kept. `resumes`: a run goes on, so the archive has to be the one it began with."""

    folder: Path
    resumes: bool = False


def index_folder(run_folder: str, resume: str) -> IndexFolder:
    """That of a run; one without a checkpoint does not go on, whatever `resume` says."""
    folder = Path(run_folder).expanduser()
    return IndexFolder(folder / files.ARCHIVE_INDEXES, bool(resume) and any(folder.glob("*.ckpt")))


class Archive:
    """An open archive. Threads may read from it at once, because no read moves a position."""

    def __init__(self, path: Path, index: Index):
        self.path, self.index = path, index
        self.names = index.names
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    def read(self, row: int) -> bytes:
        """The bytes of a member.

        Raises BadImage where the member is damaged, ZooError where the archive is no longer the one of the index.
        """
        index = self.index
        self._require_same()
        size, packed, offset = int(index.size[row]), int(index.packed[row]), int(index.offset[row])
        if max(size, packed) > MOST_BYTES:
            raise BadImage(f"{size} bytes, more than the {MOST_BYTES} that are read")
        if index.kind == "tar":
            return self._pread(offset, size)
        data = self._zipped(offset, len(index.raw_name(row)), packed)
        if index.deflated[row]:
            data = inflated(data, size)
        if len(data) != size or zlib.crc32(data) != index.crc[row]:
            raise BadImage("its checksum in the archive is another one")
        return data

    def _zipped(self, offset: int, name_length: int, packed: int) -> bytes:
        """The packed bytes of a member whose header in front of them begins at `offset`."""
        block = self._pread(offset, LOCAL_HEADER.size + name_length + EXTRA + packed, LOCAL_HEADER.size)
        mark, name, extra = LOCAL_HEADER.unpack_from(block)
        if mark != LOCAL_MARK:
            raise self._changed()
        start = LOCAL_HEADER.size + name + extra
        data = block[start : start + packed]
        return data if len(data) == packed else self._pread(offset + start, packed)

    def _pread(self, offset: int, size: int, least: int | None = None) -> bytes:
        """`size` bytes, or at least `least` where the file ends before."""
        parts, missing = [], size
        try:
            while missing and (part := os.pread(self._file, missing, offset + size - missing)):
                parts.append(part)
                missing -= len(part)
        except OSError as error:
            raise ZooError(f"cannot read {self.path}: {error.strerror}; check its disk or server") from error
        if size - missing < (size if least is None else least):
            raise ZooError(f"{self.path} is truncated: it ends before its members do; copy it again")
        return b"".join(parts)

    def _require_same(self) -> None:
        if stamp_of(os.fstat(self._file)) != self.index.stamp:
            raise self._changed()

    def _changed(self) -> ZooError:
        return ZooError(f"{self.path} has changed since its index was made; start again with a file that stays")


def inflated(data: bytes, size: int) -> bytes:
    """Deflated bytes unpacked, to one byte more than `size` at most."""
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size + 1)
    except zlib.error as error:
        raise BadImage(f"cannot be unpacked ({first_line(error)})") from error


def stamp_of(status: os.stat_result) -> tuple[int, int]:
    """Size in bytes and time of the last change in ns of a file."""
    return status.st_size, status.st_mtime_ns


_in_use: weakref.WeakValueDictionary[tuple, Archive] = weakref.WeakValueDictionary()


def open_archive(path: Path, indexes: IndexFolder | None = None) -> Archive:
    """An archive with the index that is kept, or a new one; it is opened once for as long as somebody uses it.

    Raises ZooError for a file that cannot be used.
    """
    try:
        key = path.resolve(), stamp_of(path.stat()), indexes
        archive = _in_use.get(key)
        if archive is None:
            archive = _in_use[key] = Archive(path, _index_of(path, indexes))
        return archive
    except OSError as error:
        raise ZooError(f"cannot open {path}: {error.strerror or first_line(error)}; check it and its index") from error


def _index_of(path: Path, indexes: IndexFolder | None) -> Index:
    if indexes is None:
        return read_members(path, stamp_of(path.stat()))
    indexes.folder.mkdir(parents=True, exist_ok=True)
    with files.locked(indexes.folder / ".lock"):  # by the other ranks, which wait for the first one's index
        return kept_index(path, indexes)


def kept_index(path: Path, indexes: IndexFolder) -> Index:
    """The index of the run folder where it belongs to the file as it is; else a new one, which is kept.

    A run that goes on is refused where the members are others than those it began with.
    """
    name = f"{path.stem}-{hashlib.sha256(bytes(path.resolve())).hexdigest()[:8]}.npz"
    kept, stamp = indexes.folder / name, stamp_of(path.stat())
    before = Index.load(kept)
    if before is not None and before.stamp == stamp:
        return before
    now = read_members(path, stamp)
    if indexes.resumes and before is not None and not before.has_same_members(now):
        raise ZooError(
            f"{path} has changed since this run began ({len(before.names)} files then, {len(now.names)} now); "
            "go on with the archive it began with, or start a new run"
        )
    files.replace_file(kept, now.save)
    return now


@dataclass(frozen=True)
class Members:
    """A source (source.py) of an archive's members: their names below `where` and their rows in the index."""

    archive: Archive
    where: Path
    names: tuple[str, ...]
    member: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        return self.names[index]

    def read(self, index: int) -> bytes:
        return self.archive.read(self.member[index])

    def stamp(self, index: int) -> tuple[int, int]:
        """Size in bytes, and the checksum of a .zip's member or the time when the .tar was changed last."""
        found, row = self.archive.index, self.member[index]
        return int(found.size[row]), int(found.crc[row]) if found.kind == "zip" else found.stamp[1]

    def rows(self, order: np.ndarray) -> Iterator[list[tuple[int, bytes | None]]]:
        return rows_to_read(order)

    def select(self, indices: Indices) -> Members:
        return Members(
            self.archive,
            self.where,
            tuple(self.names[index] for index in indices),
            tuple(self.member[index] for index in indices),
        )
