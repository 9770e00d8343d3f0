"""The index of a .tar or .zip file: which files it holds, and where. No MindSpore here."""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from src.engine.errors import ZooError, first_line

VERSION = 1  # of the index files
BLOCK = 512  # bytes of a .tar's headers
ENCRYPTED, UTF8 = 1, 0x800  # bits of a .zip member's flags
NOT_DATA = "__MACOSX"  # folder that macOS adds to .zip files
INNER = (".tar", ".zip", ".tgz", ".gz", ".bz2", ".xz", ".7z")
ENCODING, ERRORS = "utf-8", "surrogateescape"  # as Python reads the names of a disk


class Member(NamedTuple):
    """A file in an archive. `offset` is that of its bytes in a .tar, of the header before them in a .zip."""

    name: str
    offset: int
    size: int
    packed: int  # bytes that it takes in the archive
    crc: int = 0
    deflated: bool = False


@dataclass(frozen=True)
class Index:
    """All files of an archive, sorted by the parts of their names; hidden ones are left out."""

    kind: str  # "tar" or "zip"
    stamp: tuple[int, int]  # size in bytes and time of the last change in ns of the archive
    text: np.ndarray  # the names as UTF-8, each with a 0 behind it
    offset: np.ndarray  # (N,) int64, as in Member
    size: np.ndarray  # (N,) int64
    packed: np.ndarray  # (N,) int64
    crc: np.ndarray  # (N,) uint32, 0 in a .tar
    deflated: np.ndarray  # (N,) bool

    @cached_property
    def names(self) -> list[str]:
        return self.text.tobytes().decode(ENCODING, ERRORS).split("\0")[:-1]

    def raw_name(self, row: int) -> bytes:
        """A member's name as the bytes that the archive most likely holds."""
        return self.names[row].encode(ENCODING, ERRORS)

    def has_same_members(self, other: Index) -> bool:
        """Whether names, sizes and checksums are those of another index."""
        return all(np.array_equal(getattr(self, key), getattr(other, key)) for key in ("text", "size", "crc"))

    def save(self, path: Path) -> None:
        stamp = np.array([VERSION, *self.stamp], np.int64)
        columns = {key: getattr(self, key) for key in COLUMNS}
        np.savez(path, kind=np.array(self.kind), stamp=stamp, text=self.text, **columns)

    @staticmethod
    def load(path: Path) -> Index | None:
        """The index in a file; None without a good one."""
        try:
            with np.load(path) as stored:
                version, size, time = stored["stamp"].tolist()
                if version != VERSION:
                    return None
                return Index(str(stored["kind"]), (size, time), **{key: stored[key] for key in ("text", *COLUMNS)})
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error):
            return None


COLUMNS = {"offset": np.int64, "size": np.int64, "packed": np.int64, "crc": np.uint32, "deflated": np.bool_}


def read_members(path: Path, stamp: tuple[int, int]) -> Index:
    """Read the headers of an archive. Raises ZooError for one that is damaged or of another kind, OSError."""
    kind = path.suffix.lower()[1:]
    try:
        listed = list(members_of_tar(path) if kind == "tar" else members_of_zip(path))
    except (tarfile.TarError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        reason = f"truncated, damaged or no .{kind} file ({first_line(error)})"
        raise ZooError(f"{path} is {reason}; copy it again") from error
    found = {member.name: member for member in listed}  # of two with one name the second counts, as when unpacked
    if not found:
        raise ZooError(f"{path} holds no files; pack the data set again: python tools/pack_data.py FOLDER OUT.tar")
    if all(name.lower().endswith(INNER) for name in found):
        raise ZooError(f"{path} holds an archive ({min(found)}) and nothing else; unpack {path.name} and give that one")
    members = [found[name] for name in sorted(found, key=lambda name: name.split("/"))]
    for above, member in zip(members, members[1:]):
        if member.name.startswith(f"{above.name}/"):
            raise ZooError(f"{path} holds {above.name!r} as a file and as a folder; pack the data set again")
    text = np.frombuffer("".join(f"{member.name}\0" for member in members).encode(ENCODING, ERRORS), np.uint8)
    columns = {key: np.array([getattr(member, key) for member in members], of) for key, of in COLUMNS.items()}
    return Index(kind, stamp, text, **columns)


def clean_name(path: Path, name: str) -> str:
    """A member's name without ./ in it; empty for a hidden one. Raises ZooError for one outside of the archive."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts:
        raise ZooError(f"{path} holds {name!r}, which lies outside of it; pack the data set again")
    return "" if any(part[0] == "." for part in parts) or parts[:1] == [NOT_DATA] else "/".join(parts)


def members_of_tar(path: Path) -> Iterator[Member]:
    with tarfile.open(path, "r:", encoding=ENCODING, errors=ERRORS) as tar:
        places: dict[str, tuple[int, int]] = {}  # of files that are there under more than one name
        while (info := tar.next()) is not None:
            vars(tar)["members"].clear()  # tarfile keeps all that it has seen
            if info.isdir():
                continue
            name = clean_name(path, info.name)
            if info.islnk() and info.linkname in places:
                offset, size = places[info.linkname]
            elif info.isreg() and not info.issparse():
                offset, size = info.offset_data, info.size
            elif name:
                raise ZooError(
                    f"{path} holds {info.name!r}, which is a link, a device or a file with holes; "
                    "pack the data set again: python tools/pack_data.py FOLDER OUT.tar"
                )
            else:
                continue
            places[info.name] = (offset, size)
            if name:
                yield Member(name, offset, size, size)
        tar.fileobj.seek(tar.offset)
        if tar.fileobj.read(BLOCK) != bytes(BLOCK):
            raise tarfile.ReadError("its end mark is missing")


def members_of_zip(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as opened:
        for info in opened.infolist():
            # Without the flag Python takes code page 437; on Linux such names are the bytes of the disk.
            stored = getattr(info, "orig_filename", info.filename)  # Python 3.12 replaces filename by an extra field
            raw = stored if info.flag_bits & UTF8 else stored.encode("cp437").decode(ENCODING, ERRORS)
            name = clean_name(path, raw)
            if info.is_dir() or not name:
                continue
            if info.flag_bits & ENCRYPTED:
                raise ZooError(f"{path} holds {name!r} with a password; pack the data set without one")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ZooError(
                    f"{path} holds {name!r} in compression {info.compress_type}; "
                    "stored (0) and deflated (8) members are read, so pack the data set again"
                )
            if (info.external_attr >> 16) & 0o170000 not in (0, 0o100000):
                raise ZooError(f"{path} holds {name!r}, which is a link or a device; pack plain files only")
            deflated = info.compress_type == zipfile.ZIP_DEFLATED
            yield Member(name, info.header_offset, info.file_size, info.compress_size, info.CRC, deflated)
