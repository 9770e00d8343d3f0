"""The random masks of stochastic depth and of the head's dropout, by (seed, epoch, step). No MindSpore here."""

from __future__ import annotations

import numpy as np

from src.engine.data import stream


def keep_masks(
    path_rates: list[float], channels: int, channel_rate: float, batch: int, key: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """(blocks, 2, N) for the two branches of every block and (N, channels) for the head, float32.

    An entry is 0 for what is dropped and 1 / (1 - rate) for what is kept. `key` is seed, epoch and step.
    """
    seed, epoch, step = key
    rng = stream.generator(seed, stream.DROPOUT, epoch, step)
    rates = np.asarray(path_rates, np.float32).reshape(-1, 1, 1)
    paths = (rng.random((len(path_rates), 2, batch), np.float32) >= rates) / (1 - rates)
    head = (rng.random((batch, channels), np.float32) >= channel_rate) / np.float32(1 - channel_rate)
    return paths.astype(np.float32), head.astype(np.float32)
