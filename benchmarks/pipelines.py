"""Other data pipelines with train.py's transform: PIL in processes, as torch's DataLoader works, and MindData.

As in a DataLoader, PIL's workers make whole batches, put them into shared memory, where the consumer finds them without
a copy, and prepare two each in advance.
"""

from __future__ import annotations

import math
import multiprocessing
import time
from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from multiprocessing.sharedctypes import RawArray
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from benchmarks.jobs import Job

AHEAD = 2  # batches per worker that PIL's processes prepare
AHEAD_SAMPLES = 256  # that our threads prepare
JITTER = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
STRENGTH = 0.4
MEAN = np.array([0.485, 0.456, 0.406], np.float32)[:, None, None]
STD = np.array([0.229, 0.224, 0.225], np.float32)[:, None, None]
SCALE, SHIFT = 1 / (255 * STD), MEAN / STD

_memory = {}  # of a worker process: the array (slots, N, 3, H, W) that it shares with the consumer


def crop_box(width: int, height: int, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of 8 to 100 % of the area, 3:4 to 4:3 (arXiv 1409.4842, section 6)."""
    for _ in range(10):
        area, ratio = width * height * rng.uniform(0.08, 1), math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        wide, high = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if wide <= width and high <= height:
            left, top = rng.uniform(0, width - wide), rng.uniform(0, height - high)
            return left, top, left + wide, top + high
    return 0, 0, width, height


def transform(file: str, rng: np.random.Generator, size: int, out: np.ndarray) -> None:
    """Random crop, flip, colour jitter in random order, normalise; written to `out`, (3, size, size) float32."""
    with Image.open(file) as opened:
        image = opened.convert("RGB")
    image = image.resize((size, size), Image.BILINEAR, box=crop_box(image.width, image.height, rng))
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
        arriving = pool.imap(partial(centre, size=size), files, chunksize=max(1, batch // 4))
        while images := list(islice(arriving, batch)):
            yield np.stack(images)


def batch_counts(job: Job) -> tuple[int, int, int]:
    """Batches before the clock starts, timed ones, and those that may be started in advance of the last timed one.

    Multiples of the worker count, because processes that make whole batches deliver them in bursts.
    """
    timed = max(job.calls, round(6 * job.seconds))
    ahead = (AHEAD + 1) * job.threads + -(-AHEAD_SAMPLES // job.batch)
    return AHEAD * job.threads, -(-timed // job.threads) * job.threads, ahead


def time_batches(batches: Iterable, job: Job) -> dict:
    """Images/s of a pipeline whose batches are taken as soon as they are there."""
    ignored, timed, _ = batch_counts(job)
    arriving = iter(batches)
    took = sum(1 for _ in islice(arriving, ignored))
    began = time.perf_counter()
    took += sum(1 for _ in islice(arriving, timed))
    elapsed = time.perf_counter() - began
    if took != ignored + timed:
        raise RuntimeError(f"the pipeline gave {took} batches instead of {ignored + timed}")
    return {"images_per_s": job.batch * timed / elapsed, "seconds": elapsed / timed}


def photos_in(folder: str) -> list[str]:
    return [str(file) for file in sorted(Path(folder).glob("*/*.jpg"))]


def pil(job: Job) -> dict:
    """PIL in one process per core."""
    batches = pil_batches(photos_in("many_photos"), sum(batch_counts(job)), job.batch, job.width, job.threads)
    return time_batches(batches, job)


def minddata(job: Job) -> dict:
    """MindSpore's own pipeline, in C++."""
    import mindspore.dataset as ds
    from mindspore.dataset import vision

    jitter = (1 - STRENGTH, 1 + STRENGTH)
    transforms = [
        vision.RandomCropDecodeResize(job.width),
        vision.RandomHorizontalFlip(),
        vision.RandomColorAdjust(jitter, jitter, jitter),
        vision.Normalize((255 * MEAN.ravel()).tolist(), (255 * STD.ravel()).tolist()),
        vision.HWC2CHW(),
    ]
    data = ds.ImageFolderDataset("many_photos", num_parallel_workers=job.threads, shuffle=True)
    data = data.map(transforms, "image", num_parallel_workers=job.threads)
    data = data.batch(job.batch, drop_remainder=True, num_parallel_workers=job.threads)
    return time_batches(data.create_tuple_iterator(num_epochs=1, output_numpy=True), job)
