"""What a measured process is asked to do, the clock, and what all peers' MobileNetV2 share.

No framework here: a process holds only the one that it measures.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

CLASSES = 1000  # of MobileNetV2
CITY_CLASSES = 19  # of SegFormer
RATE, MOMENTUM, DECAY = 0.01, 0.9, 0.00004  # of the peers' SGD
# Expansion, output channels, repeats, stride of the first repeat. Not imported: network.py would load MindSpore.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class NotBuilt(Exception):
    """The contender cannot do this work yet; the text says what is missing."""


@dataclass(frozen=True)
class Job:
    """The work, and for how long it is repeated. Each field has the value that most rows share."""

    network: str = "mobilenetv2"  # or mit_b0, mit_b2: SegFormer's encoders
    batch: int = 32
    height: int = 224
    width: int = 224
    multiplier: float = 1.0  # of MobileNetV2's channels
    bfloat16: bool = False
    images: int = 256  # files of those rows that read files
    epochs: int = 15  # of fine-tuning
    warm_up: int = 2  # calls after the first one, which compiles
    calls: int = 3  # timed calls at least ...
    seconds: float = 8.0  # ... for so many seconds at least; a quarter of it to warm up
    threads: int = 0  # cores that the process may use; 0 stands for all
    began: float = 0.0  # when the process was started, in seconds since 1970

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.batch, 3, self.height, self.width


def scaled(channels: int, multiplier: float) -> int:
    """A multiple of 8 near channels * multiplier, never more than 10 % below it."""
    wanted = channels * multiplier
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded


def noise(shape: tuple[int, ...]) -> np.ndarray:
    """Normally distributed float32."""
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def class_targets(batch: int) -> np.ndarray:
    """Smoothed target probabilities (N, CLASSES), float32."""
    target = np.full((batch, CLASSES), 0.1 / (CLASSES - 1), np.float32)
    target[np.arange(batch), np.random.default_rng(0).integers(CLASSES, size=batch)] = 0.9
    return target


def since_start(job: Job) -> dict:
    """Seconds since this process was started."""
    return {"start_s": time.time() - job.began}


def repeat(call: Callable[[], object], least: int, seconds: float) -> tuple[int, float]:
    """Call at least so often and for at least so long; returns how often and how long it was."""
    began, count, elapsed = time.perf_counter(), 0, 0.0
    while count < least or elapsed < seconds:
        call()
        count, elapsed = count + 1, time.perf_counter() - began
    return count, elapsed


def time_calls(call: Callable[[], object], job: Job) -> dict:
    """Seconds per call and images/s once warm, and seconds from the process's start to the end of the first call."""
    call()
    answer = since_start(job)
    repeat(call, job.warm_up, job.seconds / 4)
    count, elapsed = repeat(call, job.calls, job.seconds)
    return {"seconds": elapsed / count, "images_per_s": job.batch * count / elapsed, "calls": count, **answer}
