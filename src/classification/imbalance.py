"""Classes of different sizes: weights in the loss, and epochs that hold as many images of each. No MindSpore here."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np

from src.classification.config import Config
from src.engine.data import stream
from src.engine.errors import ZooError

BALANCED = "balanced"


def class_weights(wanted: str, labels: np.ndarray, class_to_index: dict[str, int]) -> np.ndarray | None:
    """Factors (K,) float32 of the classes' losses, whose mean over `labels` is 1; None where `wanted` is empty.

    "balanced" is N / (K * images of the class), so that each class counts the same; anything else is a CSV file with a
    line "CLASS,WEIGHT" for each class. Raises ZooError where a class has no image or the file does not fit.
    """
    if not wanted:
        return None
    counts = np.bincount(labels, minlength=len(class_to_index)).astype(np.float64)
    if wanted == BALANCED:
        # A folder without images was refused when they were listed; one whose images are all bad has no loss to weigh.
        weights = np.divide(1.0, counts, out=np.zeros_like(counts), where=counts > 0)
    else:
        found = read_weights(Path(wanted).expanduser(), class_to_index)
        weights = np.array([found[name] for name in sorted(class_to_index, key=class_to_index.__getitem__)])
    return (weights * counts.sum() / (weights * counts).sum()).astype(np.float32)


def read_weights(path: Path, class_to_index: dict[str, int]) -> dict[str, float]:
    """The weight of each class."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeError, csv.Error) as error:
        raise ZooError(f"cannot read class_weights {path}: {error}; give 'balanced' or a CSV file") from error
    found: dict[str, float] = {}
    for row in rows:
        name, text = (row[0], row[1]) if len(row) == 2 else ("", "")
        if name not in class_to_index or name in found:
            raise ZooError(f"{path} has the line {','.join(row)!r}; it has to be CLASS,WEIGHT, once for each class")
        try:
            found[name] = float(text)
        except ValueError:
            found[name] = math.nan
        if not 0 < found[name] < math.inf:
            raise ZooError(f"{path} gives class {name!r} the weight {text!r}; it has to be a number above 0")
    missing = [name for name in class_to_index if name not in found]
    if missing:
        raise ZooError(f"{path} has no line for class {missing[0]!r}; each class needs a line CLASS,WEIGHT")
    return found


def weighted(target: np.ndarray, label: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """Target probabilities (N, K) times the weight of each image's class: the loss is linear in them."""
    return target if weights is None else target * weights[label][:, None]


def balanced_order(labels: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """An epoch (N,) that draws each class equally often (to one image), in which the same images come back.

    The numbers are index + N * (how often the image was drawn before in this epoch), so that what is random about an
    image is another thing each time.
    """
    rng, count = stream.generator(seed, stream.ORDER, epoch), len(labels)
    classes = rng.permutation(np.unique(labels))
    shares = np.full(len(classes), count // len(classes))
    shares[: count % len(classes)] += 1
    drawn = []
    for label, share in zip(classes, shares):
        own = np.flatnonzero(labels == label)
        rounds = [rng.permutation(own) + count * number for number in range(-(-share // len(own)))]
        drawn.append(np.concatenate(rounds)[:share])
    return rng.permutation(np.concatenate(drawn))


def epoch_order(labels: np.ndarray, cfg: Config, epoch: int) -> np.ndarray:
    """The images of one epoch as `sampler` wants them, numbered as in `balanced_order`."""
    if cfg.sampler == BALANCED:
        return balanced_order(labels, cfg.seed, epoch)
    return stream.shuffled(len(labels), cfg.seed, epoch)
