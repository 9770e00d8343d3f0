"""Pictures that are there twice: exactly, or nearly, as after another compression or resizing. No MindSpore here.

Near ones are found by a perceptual hash of 64 bits (pHash of the library imagehash). Hashes of few differing bits are
a suspicion only: handwritten digits of one class have them too. Two pictures count as the same where their grey values
at 16 x 16 are also correlated, which no pair of different digits, CIFAR-10 pictures or street scenes reached.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import cv2
import imagehash
import numpy as np
from PIL import Image

FEW_BITS = 4  # of the 64 that may differ
BANDS = (0, 13, 26, 39, 52, 64)  # one more than FEW_BITS: hashes that differ in so few bits agree in a whole band
SIDE = 16  # of the grey picture that is compared
SAME = 0.985  # correlation of two grey pictures from which on they are one
FLAT = 2.0  # standard deviation of grey values below which a picture shows nothing that could be compared
MOST_AT_ONCE = 4_000_000  # pairs in memory
HASHED_SIDE = 64  # pictures are shrunk to this before they are hashed, which is faster


def digest(pixels: np.ndarray) -> bytes:
    """16 bytes that two pictures (H, W, 3) uint8 share only where size and pixels are equal."""
    found = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
    found.update(np.ascontiguousarray(pixels).data)
    return found.digest()


def grey(pixels: np.ndarray) -> np.ndarray:
    """(SIDE, SIDE) float32: what is left of a picture when details, colours and size are gone."""
    small = cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)


def perceptual_hash(pixels: np.ndarray) -> tuple[int, bool]:
    """(pHash of 64 bits, whether the picture shows enough for the hash to mean something)."""
    small = cv2.resize(pixels, (HASHED_SIDE, HASHED_SIDE), interpolation=cv2.INTER_AREA)
    bits = imagehash.phash(Image.fromarray(small)).hash
    return int.from_bytes(np.packbits(bits).tobytes(), "big"), bool(grey(pixels).std() > FLAT)


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Pearson's correlation of two grey pictures; 0 where one of them is flat."""
    one, other = one - one.mean(), other - other.mean()
    size = float(np.sqrt((one * one).sum() * (other * other).sum()))
    return float((one * other).sum()) / size if size else 0.0


def equal_pairs(left: np.ndarray, right: np.ndarray) -> list[tuple[int, int]]:
    """(i, j) with left[i] == right[j], for each j the first such i; digests as (N,) of 16 bytes."""
    first: dict[bytes, int] = {}
    for index, value in enumerate(left.tolist()):
        first.setdefault(value, index)
    return [(first[value], index) for index, value in enumerate(right.tolist()) if value in first]


def groups(digests: np.ndarray) -> list[list[int]]:
    """Indices of what is there more than once."""
    found: dict[bytes, list[int]] = {}
    for index, value in enumerate(digests.tolist()):
        found.setdefault(value, []).append(index)
    return [members for members in found.values() if len(members) > 1]


def distances(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Differing bits of pairs of hashes, (N,) uint64 each."""
    return np.unpackbits((left ^ right).view(np.uint8).reshape(len(left), 8), axis=1).sum(1)


def near_pairs(left: np.ndarray, right: np.ndarray) -> list[tuple[int, int, int]]:
    """(i, j, bits) of all hashes left[i] and right[j], (N,) uint64, that differ in FEW_BITS at most, closest first."""
    found: set[tuple[int, int, int]] = set()
    for low, high in zip(BANDS, BANDS[1:]):
        shift, mask = np.uint64(low), np.uint64((1 << (high - low)) - 1)
        keys = (left >> shift) & mask
        order = np.argsort(keys, kind="stable")
        for i, j in candidates(keys[order], (right >> shift) & mask):
            i = order[i]
            bits = distances(left[i], right[j])
            close = bits <= FEW_BITS
            found.update(zip(i[close].tolist(), j[close].tolist(), bits[close].tolist()))
    return sorted(found, key=lambda pair: (pair[2], pair[1], pair[0]))


def candidates(ordered: np.ndarray, wanted: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All (i, j) with ordered[i] == wanted[j], some at a time."""
    begin, end = np.searchsorted(ordered, wanted, "left"), np.searchsorted(ordered, wanted, "right")
    counts = end - begin
    part = np.cumsum(counts) // MOST_AT_ONCE
    for number in np.unique(part[counts > 0]):
        rows = np.flatnonzero((part == number) & (counts > 0))
        repeated = np.repeat(rows, counts[rows])
        within = np.arange(len(repeated)) - np.repeat(np.cumsum(counts[rows]) - counts[rows], counts[rows])
        yield begin[repeated] + within, repeated
