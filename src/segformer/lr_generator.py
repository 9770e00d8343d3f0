"""The learning rate of every training step."""

from __future__ import annotations

import numpy as np

SCHEDULES = {"original": "constant", "paper": "linear"}  # by recipe


def get_lr(schedule: str, lr: float, warmup_steps: int, warmup_ratio: float, total_steps: int) -> np.ndarray:
    """Constant, or falling linearly to 0 after the last step; float32, one value per step.

    During the first `warmup_steps` the rate is multiplied by a factor that rises linearly from `warmup_ratio` to 1.
    """
    step = np.arange(total_steps, dtype=np.float64)
    rate = lr * (1.0 - step / total_steps) if schedule == "linear" else np.full(total_steps, lr)
    rising = np.minimum(step / max(warmup_steps, 1), 1.0)
    factor = warmup_ratio + (1.0 - warmup_ratio) * rising if warmup_steps else 1.0
    return (rate * factor).astype(np.float32)
