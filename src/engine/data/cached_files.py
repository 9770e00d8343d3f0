"""A source whose bytes come, encoded as they are, through MindSpore's dataset cache server.

For data on a network file system: each file is read once, by whoever comes first, and then comes from the server's
memory, in any order. The cache lies at the ImageFolderDataset itself (MindSpore has none above random operations), so
decoding and augmentation stay ours and a cached run sees the same pixels as an uncached one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import mindspore.dataset as ds
import numpy as np

from src.engine.data.source import Indices, Source
from src.engine.errors import ZooError, first_line


class CachedFiles:
    """The files of class folders from a cache session; the server's port comes from MS_CACHE_PORT.

    A source (source.py) whose `rows` come from the server; everything else is asked of `files`.
    """

    def __init__(self, files: Source, session_id: int, spilling: bool):
        self._files = files
        names = [files.name(index) for index in range(len(files))]
        self._root = str(files.where.resolve())
        self._suffixes = sorted({Path(name).suffix for name in names})
        self._rows, self._labels = listing(Path(self._root), self._suffixes)
        position = {name: row for row, name in enumerate(self._rows)}
        self._position = [position.get(name, -1) for name in names]
        self._cache = ds.DatasetCache(session_id=session_id, size=0, spilling=spilling)

    @property
    def where(self) -> Path:
        return self._files.where

    def __len__(self) -> int:
        return len(self._files)

    def name(self, index: int) -> str:
        return self._files.name(index)

    def read(self, index: int) -> bytes:
        return self._files.read(index)

    def stamp(self, index: int) -> tuple[int, int]:
        return self._files.stamp(index)

    def select(self, indices: Indices) -> Source:
        return self._files.select(indices)

    def rows(self, order: np.ndarray) -> Iterator[list[tuple[int, bytes | None]]]:
        """For each row of `order` (steps, batch): (index, content), content None for a file in a sub-folder.

        MindSpore does not look into sub-folders of a class; such files are read as without a cache.
        """
        wanted = [self._position[index] for index in order.reshape(-1) if self._position[index] >= 0]
        arriving = self._read(wanted)
        for row in order:
            yield [(int(index), next(arriving) if self._position[index] >= 0 else None) for index in row]

    def _read(self, rows: list[int]) -> Iterator[bytes]:
        if not rows:
            return
        data = ds.ImageFolderDataset(
            self._root, decode=False, extensions=self._suffixes, sampler=ds.SubsetSampler(rows), cache=self._cache
        )
        try:
            contents: Iterable = data.create_tuple_iterator(num_epochs=1, output_numpy=True)
            for row, (content, label) in zip(rows, contents):
                if int(label) != self._labels[row]:
                    raise ZooError(f"{self._root} has changed since the run began; start it again")
                yield content.tobytes()
        except RuntimeError as error:
            raise ZooError(
                f"the dataset cache failed ({message(error)}); "
                "check that its server runs and that cache_session_id is of this data set, or leave enable_cache out"
            ) from error

    def statistics(self) -> str:
        """How much the server holds."""
        found = self._cache.get_stat()
        megabytes = (found.num_mem_cached + found.num_disk_cached) * found.avg_cache_sz / 1e6
        where = f"{found.num_mem_cached} files in memory, {found.num_disk_cached} on disk"
        return f"dataset cache: {where}, {megabytes:.1f} MB"


def listing(root: Path, suffixes: list[str]) -> tuple[list[str], list[int]]:
    """Files relative to `root` and labels as ImageFolderDataset numbers them: folders and files sorted, hidden too."""
    files, labels = [], []
    for label, folder in enumerate(sorted(entry.name for entry in root.iterdir() if entry.is_dir())):
        names = sorted(entry.name for entry in (root / folder).iterdir() if entry.is_file())
        chosen = [f"{folder}/{name}" for name in names if Path(name).suffix in suffixes]
        files += chosen
        labels += [label] * len(chosen)
    return files, labels


def message(error: Exception) -> str:
    """The sentence in MindData's framed error text."""
    lines = [line for line in str(error).splitlines() if line.startswith("[ERROR]")]
    return lines[0].removeprefix("[ERROR]").strip() if lines else first_line(error)
