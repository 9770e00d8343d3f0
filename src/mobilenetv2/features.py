"""The frozen backbone's features, computed once and kept in the run folder."""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from src.engine.data import stream
from src.engine.data.image_folder import ImageFolder
from src.engine.io import files
from src.engine.ranks import Rank
from src.mobilenetv2 import dataset
from src.mobilenetv2.config import Config
from src.mobilenetv2.pretrained import digest

FOLDER = "features"
BATCH = 32  # images per inference step


def cache_key(backbone: dict[str, np.ndarray], folder: ImageFolder, cfg: Config) -> str:
    """A hash of all that the features depend on; anything that changes gives another key, so nothing stale is read."""
    listing = [(file, *_stamp(folder.path(index))) for index, file in enumerate(folder.files)]
    preprocessing = [cfg.image_height, cfg.image_width, dataset.MEAN, dataset.STD, dataset.RESIZE_RATIO]
    parts = [digest(backbone), str(folder.root.resolve()), listing, folder.labels.tolist(), preprocessing]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _stamp(path: Path) -> tuple[int, int]:
    """Size and time of the last change in ns; a vanished file is found when it is read."""
    try:
        status = path.stat()
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def cached(
    predict: Callable[[np.ndarray], np.ndarray],
    backbone: dict[str, np.ndarray],
    folder: ImageFolder,
    cfg: Config,
    run: Path,
    bad: stream.BadFiles,
    say: Callable[[str], None],
    rank: Rank,
) -> tuple[np.ndarray, np.ndarray]:
    """Pooled features (N, C) float32 and labels (N,) int32 of every readable file, from the cache where it fits.

    `predict` maps images (BATCH, 3, H, W) to pooled features (BATCH, C). Ranks share the work, the first one writes.
    """
    path = run / FOLDER / f"{cache_key(backbone, folder, cfg)}.npz"
    stored = read(path, bad, say)
    if rank.total(np.array([stored is not None]))[0] == rank.count:
        say(f"features of {len(stored[1])} images from {path}")
        return stored
    feature, label = compute(predict, folder, cfg, bad, rank)
    if rank.is_first:
        bad_text = json.dumps(bad.reasons)
        files.replace_file(path, lambda temporary: np.savez(temporary, feature=feature, label=label, bad=bad_text))
        say(f"features of {len(label)} images written to {path}")
    return feature, label


def read(path: Path, bad: stream.BadFiles, say: Callable[[str], None]) -> tuple[np.ndarray, np.ndarray] | None:
    """Features and labels of a file that `cached` wrote, None without a good one; the bad files it knows are noted."""
    try:
        with np.load(path) as stored:
            feature, label, reasons = stored["feature"], stored["label"], json.loads(str(stored["bad"]))
    except FileNotFoundError:
        return None
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        say(f"{path} is damaged ({type(error).__name__}); the features are computed again")
        return None
    for file, reason in reasons.items():
        bad.add(file, reason)
    return feature, label


def compute(
    predict: Callable[[np.ndarray], np.ndarray], folder: ImageFolder, cfg: Config, bad: stream.BadFiles, rank: Rank
) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels in the folder's order; each rank computes every `rank.count`-th batch and all get all."""
    feature, label = [], []
    for images, labels in dataset.eval_batches(folder, cfg, bad, BATCH, rank.index, rank.count):
        pooled = predict(images)
        everyone = np.zeros((rank.count, BATCH, pooled.shape[1] + 1), np.float32)
        everyone[rank.index, :, :-1], everyone[rank.index, :, -1] = pooled, labels - dataset.NO_LABEL
        everyone = rank.total(everyone).reshape(rank.count * BATCH, -1)
        feature.append(everyone[:, :-1])
        label.append(everyone[:, -1].astype(np.int32) + dataset.NO_LABEL)
    feature, label = np.concatenate(feature)[: len(folder)], np.concatenate(label)[: len(folder)]
    good = label != dataset.NO_LABEL
    for index in np.flatnonzero(~good):
        bad.add(folder.files[index], "refused by another rank, whose log says why")
    return feature[good], label[good]


def train_batches(
    feature: np.ndarray, label: np.ndarray, classes: int, cfg: Config, epoch: int, first_step: int, rank: Rank
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Shuffled features (N, C) and target probabilities (N, K) of one epoch, from `first_step` on."""
    for row in stream.training_order(len(label), cfg.batch_size, cfg.seed, epoch, rank.index, rank.count)[first_step:]:
        yield feature[row], dataset.smooth_one_hot(label[row], classes, cfg.label_smooth)


def eval_batches(feature: np.ndarray, label: np.ndarray, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All features and labels in order, the last batch padded with NO_LABEL."""
    for row in stream.evaluation_order(len(label), batch_size):
        yield dataset.pad(feature[row], label[row], batch_size)
