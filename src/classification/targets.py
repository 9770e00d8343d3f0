"""Labels as the loss wants them: smoothed, mixed, padded. No MindSpore here."""

from __future__ import annotations

import numpy as np

from src.classification.config import Config
from src.engine.data import augment, stream

NO_LABEL = -1  # label of padding and of files that could not be read; evaluation does not count it


def smooth_one_hot(label: np.ndarray, classes: int, smoothing: float) -> np.ndarray:
    """Labels (N,) -> probabilities (N, K): 1 - smoothing for the label, smoothing / (K - 1) for each other class.

    PyTorch spreads the smoothing over all K classes instead; the original recipe is kept.
    """
    target = np.full((len(label), classes), smoothing / (classes - 1), np.float32)
    target[np.arange(len(label)), label] = 1.0 - smoothing
    return target


def mix(image: np.ndarray, target: np.ndarray, rng: np.random.Generator, cfg: Config) -> tuple[np.ndarray, np.ndarray]:
    """mixup or cutmix, as configured; one of the two by chance where both are on."""
    use_cutmix = cfg.cutmix_alpha > 0 and (cfg.mixup_alpha == 0 or rng.random() < 0.5)
    if use_cutmix:
        return augment.cutmix(image, target, rng, cfg.cutmix_alpha)
    return augment.mixup(image, target, rng, cfg.mixup_alpha) if cfg.mixup_alpha else (image, target)


def pad(inputs: np.ndarray, label: np.ndarray, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Fill an incomplete batch with zeros that have label NO_LABEL."""
    missing = batch_size - len(label)
    if not missing:
        return inputs, label
    filling = np.zeros((missing, *inputs.shape[1:]), inputs.dtype)
    return np.concatenate([inputs, filling]), np.concatenate([label, np.full(missing, NO_LABEL, label.dtype)])


def softmax(logits: np.ndarray) -> np.ndarray:
    """Logits (N, K) -> probabilities (N, K) of the same type."""
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def dropout_mask(shape: tuple[int, int], rate: float, seed: int, epoch: int, step: int) -> np.ndarray:
    """(N, C) float32: 0 for a dropped feature, 1 / (1 - rate) for a kept one."""
    kept = stream.generator(seed, stream.DROPOUT, epoch, step).random(shape, np.float32) >= rate
    return kept.astype(np.float32) / np.float32(1.0 - rate)
