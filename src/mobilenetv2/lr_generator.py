"""The learning rate of every training step."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Rates(NamedTuple):
    """Where the learning rate begins, where it ends, and its highest value between."""

    init: float
    end: float
    max: float


def get_lr(
    rates: Rates, warmup_epochs: int, total_epochs: int, steps_per_epoch: int, start_epoch: int = 0
) -> np.ndarray:
    """Linear warm-up from rates.init to rates.max, then half a cosine down to rates.end; float32, one value per step.

    The values of the first `start_epoch` epochs are left out.
    """
    total, warmup = total_epochs * steps_per_epoch, warmup_epochs * steps_per_epoch
    step = np.arange(total, dtype=np.float64)
    rising = rates.init + (rates.max - rates.init) * step / max(warmup, 1)
    falling = rates.end + (rates.max - rates.end) * 0.5 * (1 + np.cos(np.pi * (step - warmup) / max(total - warmup, 1)))
    values = np.maximum(np.where(step < warmup, rising, falling), 0.0).astype(np.float32)
    return values[start_epoch * steps_per_epoch :]
