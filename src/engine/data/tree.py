"""What a data set lies in, seen as folders and files by name: a folder of a disk, or a .tar or .zip file.

What reads a data set asks a `Tree` for names and gets a `Source` of bytes; so classes, order and pixels do not depend
on where they lie. No MindSpore here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from src.engine.config.paths import expanded, is_archive
from src.engine.data.archive import Archive, IndexFolder, Members, open_archive
from src.engine.data.source import Files, Source
from src.engine.errors import ZooError
from src.engine.io.files import files_below

TRAIN_FOLDERS, EVAL_FOLDERS = ("train",), ("val", "validation_preprocess")
SPLITS = (*TRAIN_FOLDERS, *EVAL_FOLDERS)  # a lone folder of such a name in an archive is no wrapping


class Tree(Protocol):
    """A folder; names are relative to it, with / between their parts."""

    @property
    def where(self) -> Path:
        """What messages name; of an archive's folder, the archive's path with the folder's behind it."""
        ...

    @property
    def parents(self) -> tuple[Tree, ...]:
        """The folder above, unless that is outside an archive; of a link, where it lies and then where it leads to."""
        ...

    def folders(self) -> list[str]:
        """Its sub-folders, sorted, without hidden ones. Raises OSError."""
        ...

    def files(self) -> list[str]:
        """All files below, sorted by the parts of their names, without hidden files and folders."""
        ...

    def below(self, name: str) -> Tree:
        """A sub-folder; it may be missing, and then is empty."""
        ...

    def has_folder(self, name: str) -> bool: ...

    def has_file(self, name: str) -> bool: ...

    def source(self, names: Sequence[str]) -> Source:
        """The bytes of some of its files."""
        ...


@dataclass(frozen=True)
class Folder:
    """A folder of a disk."""

    where: Path

    @property
    def parents(self) -> tuple[Folder, ...]:
        where = self.where.absolute()
        above = (where.resolve() if where.name == ".." else where).parent
        return tuple(Folder(path) for path in dict.fromkeys((above, where.resolve().parent)))

    def folders(self) -> list[str]:
        return sorted(entry.name for entry in self.where.iterdir() if entry.is_dir() and entry.name[0] != ".")

    def files(self, leave_out: Path | None = None) -> list[str]:
        return [file.relative_to(self.where).as_posix() for file in files_below(self.where, leave_out)]

    def below(self, name: str) -> Folder:
        return Folder(self.where / name)

    def has_folder(self, name: str) -> bool:
        return (self.where / name).is_dir()

    def has_file(self, name: str) -> bool:
        return (self.where / name).is_file()

    def source(self, names: Sequence[str]) -> Files:
        return Files(self.where, tuple(names))


class ArchiveFolder:
    """A folder in an archive: `rows` of its index, whose `names` (relative to the folder) are sorted by their parts."""

    def __init__(self, archive: Archive, path: str, names: list[str], rows: range, parent: ArchiveFolder | None):
        self.archive, self.parents = archive, (parent,) if parent else ()
        self._path, self._names, self._rows = path, names, rows
        self._slices: dict[str, tuple[int, int]] = {}  # of the names below each sub-folder, which follow each other
        start = 0
        while start < len(names):
            first, _, rest = names[start].partition("/")
            end = start + 1
            while end < len(names) and names[end].startswith(f"{first}/"):
                end += 1
            if rest:
                self._slices[first] = (start, end)
            start = end

    @property
    def where(self) -> Path:
        return self.archive.path / self._path

    def folders(self) -> list[str]:
        return sorted(self._slices)

    def files(self) -> list[str]:
        return self._names

    def below(self, name: str) -> ArchiveFolder:
        found = self
        for part in name.split("/"):
            start, end = found._slices.get(part, (0, 0))
            names = [path[len(part) + 1 :] for path in found._names[start:end]]
            path = f"{found._path}/{part}" if found._path else part
            found = ArchiveFolder(self.archive, path, names, found._rows[start:end], found)
        return found

    def has_folder(self, name: str) -> bool:
        first, _, rest = name.partition("/")
        return first in self._slices and (not rest or self.below(first).has_folder(rest))

    def has_file(self, name: str) -> bool:
        return name in self._by_name

    def source(self, names: Sequence[str]) -> Members:
        return Members(self.archive, self.where, tuple(names), tuple(self._by_name[name] for name in names))

    @cached_property
    def _by_name(self) -> dict[str, int]:
        return dict(zip(self._names, self._rows))


def open_tree(path: str, indexes: IndexFolder | None = None) -> Tree:
    """The folder at `path`, or what the .tar or .zip file there holds; `indexes` keeps the index of such a file.

    An archive of a folder is often one folder in the archive; that one is then meant. Raises ZooError for a file that
    cannot be used.
    """
    found = expanded(path)
    if not found.is_file():
        return Folder(found)
    if not is_archive(str(found)):
        raise ZooError(f"{found} is neither a folder nor a .tar or .zip file; give one of these")
    archive = open_archive(found, indexes)
    root = ArchiveFolder(archive, "", archive.names, range(len(archive.names)), None)
    only = root.folders()
    inner = root.below(only[0]) if len(only) == 1 and only[0] not in SPLITS else root
    if inner is not root and inner.folders() and len(inner.files()) == len(root.files()):
        return ArchiveFolder(archive, only[0], inner.files(), range(len(archive.names)), None)
    return root
