"""The training transform by PIL in worker processes that make whole batches: the way of torch's DataLoader.

Like there, workers put a batch into shared memory, where the consumer finds it without a copy, and prepare two batches
each in advance.
"""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Iterator
from functools import partial
from itertools import islice
from multiprocessing.sharedctypes import RawArray

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from src.engine.data.augment import crop_box

AHEAD = 2  # batches per worker
JITTER = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
STRENGTH = 0.4
MEAN = np.array([0.485, 0.456, 0.406], np.float32)[:, None, None]
STD = np.array([0.229, 0.224, 0.225], np.float32)[:, None, None]
SCALE, SHIFT = 1 / (255 * STD), MEAN / STD

_memory = {}  # of a worker process: the array (slots, N, 3, H, W) that it shares with the consumer


def transform(file: str, rng: np.random.Generator, size: int, out: np.ndarray) -> None:
    """Random crop, flip, colour jitter in random order, normalise; written to `out`, (3, size, size) float32."""
    with Image.open(file) as opened:
        image = opened.convert("RGB")
    top, left, height, width = crop_box(image.height, image.width, rng)
    image = image.resize((size, size), Image.BILINEAR, box=(left, top, left + width, top + height))
    if rng.random() < 0.5:
        image = ImageOps.mirror(image)
    for index in rng.permutation(len(JITTER)):
        image = JITTER[index](image).enhance(rng.uniform(1 - STRENGTH, 1 + STRENGTH))
    np.multiply(np.asarray(image).transpose(2, 0, 1), SCALE, out=out)
    out -= SHIFT


def view(shared: RawArray, shape: tuple[int, ...]) -> np.ndarray:
    return np.frombuffer(shared, np.float32).reshape(shape)


def start(shared: RawArray, shape: tuple[int, ...]) -> None:
    """First call in a worker process."""
    _memory["batches"] = view(shared, shape)


def make_batch(slot: int, files: list[str], seed: int) -> int:
    """Fill one slot of the shared array; returns its number."""
    rng = np.random.default_rng(seed)
    batch = _memory["batches"][slot]
    for file, out in zip(files, batch):
        transform(file, rng, batch.shape[-1], out)
    return slot


def pil_batches(files: list[str], count: int, batch: int, size: int, workers: int) -> Iterator[np.ndarray]:
    """`count` batches (N, 3, size, size) float32 of the files in random order; each is valid until the next one."""
    slots = AHEAD * workers + 1  # one more for the batch that the consumer holds
    shape = (slots, batch, 3, size, size)
    shared = RawArray("f", int(np.prod(shape)))
    batches = view(shared, shape)
    rng = np.random.default_rng(0)
    rounds = -(-count * batch // len(files))
    order = np.concatenate([rng.permutation(len(files)) for _ in range(rounds)])[: count * batch].reshape(count, batch)
    with multiprocessing.Pool(workers, start, (shared, shape)) as pool:
        waiting: deque = deque()
        for number, indices in enumerate(order):
            names = [files[index] for index in indices]
            waiting.append(pool.apply_async(make_batch, (number % slots, names, number)))
            if len(waiting) == slots - 1:
                yield batches[waiting.popleft().get()]
        while waiting:
            yield batches[waiting.popleft().get()]


def centre(file: str, size: int) -> np.ndarray:
    """The evaluation transform: shorter side to 8 / 7 of `size`, centre crop, normalise; (3, size, size) float32."""
    with Image.open(file) as opened:
        image = opened.convert("RGB")
    scale = round(size * 8 / 7) / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.BILINEAR)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    pixels = np.asarray(image.crop((left, top, left + size, top + size)), np.float32).transpose(2, 0, 1)
    return pixels * SCALE - SHIFT


def centre_batches(files: list[str], batch: int, size: int, workers: int) -> Iterator[np.ndarray]:
    """All files in order, (N, 3, size, size) float32; the last batch may be smaller."""
    with multiprocessing.Pool(workers) as pool:
        arriving = pool.imap(partial(centre, size=size), files, chunksize=batch // 4)
        while images := list(islice(arriving, batch)):
            yield np.stack(images)
