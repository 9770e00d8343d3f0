"""The learning rate of every training step."""

from __future__ import annotations

import numpy as np


def get_lr(
    lr_init: float,
    lr_end: float,
    lr_max: float,
    warmup_epochs: int,
    total_epochs: int,
    steps_per_epoch: int,
    start_epoch: int = 0,
) -> np.ndarray:
    """Linear warm-up from lr_init to lr_max, then half a cosine down to lr_end; float32, one value per step.

    The values of the first `start_epoch` epochs are left out.
    """
    total, warmup = total_epochs * steps_per_epoch, warmup_epochs * steps_per_epoch
    step = np.arange(total, dtype=np.float64)
    rising = lr_init + (lr_max - lr_init) * step / max(warmup, 1)
    falling = lr_end + (lr_max - lr_end) * 0.5 * (1 + np.cos(np.pi * (step - warmup) / max(total - warmup, 1)))
    rates = np.maximum(np.where(step < warmup, rising, falling), 0.0).astype(np.float32)
    return rates[start_epoch * steps_per_epoch :]
