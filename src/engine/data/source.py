"""Where samples come from: named pieces of bytes in a fixed order. No MindSpore here.

Only a source knows where its bytes lie. Its kinds: files below a folder (here; class folders and both halves of image
and mask pairs are made of them), members of an archive (archive.py) and the dataset cache server (cached_files.py).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Union

import numpy as np

from src.engine.data import images
from src.engine.data.images import BadImage

Indices = Union[Sequence[int], np.ndarray]


class Source(Protocol):
    """What every kind can do; `where` is the folder, file or address that messages name."""

    @property
    def where(self) -> Path: ...

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """The sample's name below `where`."""
        ...

    def read(self, index: int) -> bytes:
        """The sample's bytes. Raises BadImage where they are gone."""
        ...

    def stamp(self, index: int) -> tuple[int, int]:
        """Two numbers of which at least one differs once the bytes have changed."""
        ...

    def rows(self, order: np.ndarray) -> Iterator[list[tuple[int, bytes | None]]]:
        """For each row of `order` (steps, batch) its (index, bytes); None where `read` has them."""
        ...

    def select(self, indices: Indices) -> Source:
        """Some of the samples, in the order of `indices`."""
        ...


def first_pictures(source: Source, count: int) -> list[np.ndarray]:
    """The first `count` samples that can be decoded, (H, W, 3) each; fewer where there are fewer."""
    found: list[np.ndarray] = []
    for index in range(len(source)):
        with contextlib.suppress(BadImage):
            found.append(images.decode(source.read(index)))
        if len(found) == count:
            break
    return found


def rows_to_read(order: np.ndarray) -> Iterator[list[tuple[int, bytes | None]]]:
    """The rows of a source whose bytes are best read one by one, by the threads that need them."""
    for row in order:
        yield [(int(index), None) for index in row]


@dataclass(frozen=True)
class Files:
    """Files below a folder."""

    where: Path
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        return self.names[index]

    def read(self, index: int) -> bytes:
        try:
            return (self.where / self.names[index]).read_bytes()
        except OSError as error:
            raise BadImage(error.strerror or str(error)) from error

    def stamp(self, index: int) -> tuple[int, int]:
        """Size in bytes and time of the last change in ns; (-1, -1) of a vanished file, which reading it will find."""
        try:
            status = (self.where / self.names[index]).stat()
        except OSError:
            return -1, -1
        return status.st_size, status.st_mtime_ns

    def rows(self, order: np.ndarray) -> Iterator[list[tuple[int, bytes | None]]]:
        return rows_to_read(order)

    def select(self, indices: Indices) -> Files:
        return Files(self.where, tuple(self.names[index] for index in indices))


@dataclass(frozen=True)
class LabelledImages:
    """Images of classes, in a fixed order."""

    source: Source
    labels: np.ndarray  # (N,) int32
    class_to_index: dict[str, int]
    left_out: tuple[str, ...] = ()  # names of what is no image

    def __len__(self) -> int:
        return len(self.source)

    @property
    def where(self) -> Path:
        return self.source.where

    @property
    def names(self) -> list[str]:
        return [self.source.name(index) for index in range(len(self))]

    @property
    def class_names(self) -> list[str]:
        return sorted(self.class_to_index, key=self.class_to_index.__getitem__)

    def select(self, indices: Indices) -> LabelledImages:
        return LabelledImages(self.source.select(indices), self.labels[indices], self.class_to_index)
