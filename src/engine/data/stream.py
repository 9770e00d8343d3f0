"""Batches of samples from a pool of threads, in an order and with randomness that depend on (seed, epoch, sample) only.

So the data do not depend on the number of threads, two runs with one seed see the same pixels, and a run that is
resumed in the middle of an epoch goes on with exactly the batch it would have seen. No MindSpore here.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Collection, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Callable, TypeVar

import numpy as np

from src.engine.data.images import BadImage
from src.engine.errors import ZooError
from src.engine.report import printable

AHEAD = 2  # batches that are made while one is used
ORDER, SAMPLE, BATCH, DROPOUT = 0, 1, 2, 3  # independent random streams of one seed
_END = object()
NO_SAMPLE = -1  # index of nothing, where a rank has nothing to evaluate while others have


def generator(seed: int, purpose: int, epoch: int, index: int = 0) -> np.random.Generator:
    """The random numbers that belong to one order, sample or batch; cheap to make and independent of all others."""
    return np.random.Generator(np.random.Philox(key=[seed * 4 + purpose, (epoch << 40) + index]))


def usable_cores() -> list[int]:
    """The CPU cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def usable_threads(wanted: int) -> int:
    """`wanted`, but not more than the cores this process may use."""
    return max(1, min(wanted, len(usable_cores())))


@dataclass(frozen=True)
class Shard:
    """Which of `count` ranks a batch is for; see engine/ranks.py."""

    index: int = 0
    count: int = 1


ALONE = Shard()


def shuffled(count: int, seed: int, epoch: int) -> np.ndarray:
    """An epoch in which every sample comes once."""
    return generator(seed, ORDER, epoch).permutation(count)


def training_order(order: np.ndarray, batch_size: int, shard: Shard = ALONE) -> np.ndarray:
    """The part of an epoch's order that is for one shard, (steps, batch_size); the incomplete last batch is left out.

    Row s of all ranks together is the batch that one rank with batch_size * ranks would see, so that training on
    several ranks sees the same global batches as training on one.
    """
    steps = len(order) // (batch_size * shard.count)
    whole = order[: steps * batch_size * shard.count]
    return whole.reshape(steps, shard.count, batch_size)[:, shard.index]


def evaluation_order(count: int, batch_size: int, shard: Shard = ALONE) -> list[np.ndarray]:
    """Sample indices in order, every one in one batch of one rank; the last batch may be smaller.

    All ranks get the same number of batches: one whose turn comes after the end has a batch of NO_SAMPLE.
    """
    rows = [np.arange(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]
    rows += [np.array([NO_SAMPLE])] * (-len(rows) % shard.count)
    return rows[shard.index :: shard.count]


class BadFiles:
    """The files that could not be read, each named once; decides whether a run goes on."""

    def __init__(self, on_bad_image: str, say: Callable[[str], None]):
        self.on_bad_image = on_bad_image
        self.reasons: dict[str, str] = {}
        self._say = say
        self._lock = threading.Lock()

    def add(self, file: str, reason: str) -> None:
        with self._lock:
            if file in self.reasons:
                return
            self.reasons[file] = reason
        file = printable(file)
        if self.on_bad_image == "error":
            raise ZooError(f"{file} is no usable image: {reason}; remove it or use --on_bad_image skip")
        self._say(f"skipped {file}: {reason}")

    def summary(self) -> str:
        return skipped(len(self.reasons)) if self.reasons else ""


def skipped(count: int) -> str:
    return f"{count} bad file{'s' if count != 1 else ''} skipped"


MOST_IN_A_ROW = 200  # bad files; more are no accident, but a folder that is gone
Loaded = TypeVar("Loaded")


def first_good(
    load: Callable[[int], Loaded], index: int, count: int, bad: BadFiles, name: Callable[[int], str]
) -> tuple[int, Loaded]:
    """(index, image or pair) of the sample at `index`, or of the next readable one, so that a batch is always full."""
    for candidate in range(index, index + min(count, MOST_IN_A_ROW)):
        try:
            return candidate % count, load(candidate % count)
        except BadImage as error:
            bad.add(name(candidate % count), reason := str(error))
    what = f"none of the {count} files" if count <= MOST_IN_A_ROW else f"none of {MOST_IN_A_ROW} files in a row"
    raise ZooError(f"{what} is a usable image ({name(index)}: {reason}); check the data folder")


@contextlib.contextmanager
def workers(threads: int) -> Iterator[ThreadPoolExecutor]:
    """A pool of threads, none of which outlives the block; what has not begun then is given up."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="data")
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def ordered_map(function: Callable, items: Iterable, threads: int, ahead: int) -> Iterator:
    """`map` on a pool of threads: results in order, at most `ahead` of them computed in advance."""
    waiting: deque = deque()
    with workers(threads) as pool:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


class _Batch:
    """Arrays that the threads of a pool fill, a row per sample; the first one that is ready tells their shapes."""

    def __init__(self, sample: Callable, items: Collection, pool: ThreadPoolExecutor):
        self._size, self._lock = len(items), threading.Lock()
        self._arrays: tuple[np.ndarray, ...] = ()
        self._rows = [pool.submit(self._fill, sample, row, item) for row, item in enumerate(items)]

    def __len__(self) -> int:
        return self._size

    def _fill(self, sample: Callable, row: int, item: object) -> None:
        values = [np.asarray(value) for value in sample(item)]
        with self._lock:
            if not self._arrays:
                self._arrays = tuple(np.empty((self._size, *value.shape), value.dtype) for value in values)
        for array, value in zip(self._arrays, values):
            if (value.shape, value.dtype) != (array.shape[1:], array.dtype):
                raise ValueError(f"{value.dtype} {value.shape} in a batch of {array.dtype} {array.shape[1:]}")
            array[row] = value

    def arrays(self) -> tuple[np.ndarray, ...]:
        """The full arrays, which are waited for. Raises what the first sample that failed did."""
        for row in self._rows:
            row.result()
        return self._arrays


def batches(sample: Callable, orders: Iterable[Collection], threads: int) -> Iterator[tuple[np.ndarray, ...]]:
    """Put `sample(item) -> tuple of arrays` together into one tuple of arrays per row of items that `orders` yields.

    The arrays are new ones for every batch. While a batch is used, the next AHEAD are made, and more only where those
    hold fewer samples than there are threads.
    """
    threads = usable_threads(threads)
    waiting: deque[_Batch] = deque()
    with workers(threads) as pool:
        for order in orders:
            waiting.append(_Batch(sample, order, pool))
            while len(waiting) > AHEAD and sum(map(len, waiting)) - len(waiting[0]) >= threads:
                yield waiting.popleft().arrays()
        while waiting:
            yield waiting.popleft().arrays()


def prefetched(items: Generator, count: int = 1) -> Generator:
    """The same items, made by a thread that is `count` of them ahead; what making one raises is raised in its turn.

    The thread ends with the last item or when this is closed, and then closes `items`.
    """
    with contextlib.closing(items), workers(1) as thread:
        waiting = deque(thread.submit(next, items, _END) for _ in range(count))
        while (item := waiting.popleft().result()) is not _END:
            waiting.append(thread.submit(next, items, _END))
            yield item
            del item  # a batch takes much memory, and the next one may be long in coming
