"""Reading every picture of a split once, as training does, and keeping a few numbers of each. No MindSpore here."""

from __future__ import annotations

import io
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image
from tqdm import tqdm

from src.engine.data import images, stream
from src.engine.data.source import Source
from src.inspection.data import duplicates

Result = TypeVar("Result")
THREADS = 8  # never more than there are cores


class Seen(NamedTuple):
    """What one picture is."""

    height: int
    width: int
    kind: str  # format and mode of the file, as "JPEG RGB"
    digest: bytes
    hash: int
    is_hashed: bool


@dataclass
class Survey:
    """What the pictures of a split are; of those in `bad` (with the reason) nothing else is known."""

    source: Source
    sizes: np.ndarray  # (N, 2) height and width, 0 where it is bad
    digests: np.ndarray  # (N,) of 16 bytes
    hashes: np.ndarray  # (N,) uint64
    is_hashed: np.ndarray  # (N,) bool
    kinds: Counter[str] = field(default_factory=Counter)
    bad: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.source)

    @property
    def good(self) -> np.ndarray:
        """(N - bad,) indices of the pictures that can be read."""
        return np.flatnonzero(self.sizes[:, 0])

    def add(self, index: int, found: Seen | str) -> None:
        if isinstance(found, str):
            self.bad[index] = found
            return
        self.sizes[index] = found.height, found.width
        self.digests[index] = np.void(found.digest)
        self.hashes[index], self.is_hashed[index] = found.hash, found.is_hashed
        self.kinds[found.kind] += 1


def empty(source: Source) -> Survey:
    count = len(source)
    digests, hashes = np.zeros(count, "V16"), np.zeros(count, np.uint64)
    return Survey(source, np.zeros((count, 2), np.int32), digests, hashes, np.zeros(count, bool))


def look(data: bytes) -> tuple[Seen, np.ndarray]:
    """What the bytes of a picture are, and its pixels. Raises BadImage."""
    pixels = images.decode(data)
    with Image.open(io.BytesIO(data)) as header:
        kind = f"{header.format} {header.mode}"
    value, is_hashed = duplicates.perceptual_hash(pixels)
    return Seen(pixels.shape[0], pixels.shape[1], kind, duplicates.digest(pixels), value, is_hashed), pixels


def read(source: Source, index: int) -> Seen | str:
    """What a picture is, or why it cannot be used."""
    try:
        return look(source.read(index))[0]
    except images.BadImage as error:
        return str(error)


def for_all(work: Callable[[int], Result], count: int, title: str) -> Iterator[Result]:
    """`work(index)` of every index in order, on threads and with a progress bar on a terminal."""
    threads = stream.usable_threads(THREADS)
    arriving = stream.ordered_map(work, range(count), threads, ahead=4 * threads)
    return iter(tqdm(arriving, title, total=count, unit="picture", leave=False, disable=not sys.stderr.isatty()))


def survey(source: Source, title: str) -> Survey:
    """Read all pictures of a source."""
    found = empty(source)
    for index, seen in enumerate(for_all(lambda index: read(source, index), len(source), title)):
        found.add(index, seen)
    return found
