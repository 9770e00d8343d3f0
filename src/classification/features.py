"""The frozen backbone's features, computed once and kept in the run folder; and batches of them."""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from src.classification import imbalance, targets
from src.classification.checkpoints import digest
from src.classification.classifier import Transforms
from src.classification.config import Config
from src.classification.dataset import Loader
from src.classification.inference import Predict
from src.classification.targets import NO_LABEL
from src.engine.data import stream
from src.engine.data.source import LabelledImages
from src.engine.io import files
from src.engine.io.run import Run

BATCH = 32  # images per inference step


@dataclass(frozen=True)
class Features:
    """Pooled features (N, C) float32 of labelled images (N,) int32."""

    feature: np.ndarray
    label: np.ndarray
    class_to_index: dict[str, int]

    def __len__(self) -> int:
        return len(self.label)

    def train_batches(
        self, cfg: Config, epoch: int, first_step: int, shard: stream.Shard, weights: np.ndarray | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Shuffled features (N, C) and target probabilities (N, K) of one epoch, from `first_step` on.

        `weights` (K,) are factors of the classes' targets.
        """
        order = imbalance.epoch_order(self.label, cfg, epoch)
        for draws in stream.training_order(order, cfg.images_per_step, shard)[first_step:]:
            row = draws % len(self)
            target = targets.smooth_one_hot(self.label[row], len(self.class_to_index), cfg.label_smooth)
            yield self.feature[row], imbalance.weighted(target, self.label[row], weights)

    def eval_batches(self, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """All features and labels in order, the last batch padded with NO_LABEL."""
        for row in stream.evaluation_order(len(self), batch_size):
            yield targets.pad(self.feature[row], self.label[row], batch_size)


def cache_key(extractor: Extractor, data: LabelledImages, transforms: Transforms, cfg: Config) -> str:
    """A hash of all that the features depend on; anything that changes gives another key, so nothing stale is read."""
    listing = [(data.source.name(index), *data.source.stamp(index)) for index in range(len(data))]
    preprocessing = [cfg.image_height, cfg.image_width, *transforms.constants]
    preprocessing += [cfg.dtype] if cfg.dtype != "float32" else []  # so that older features stay good
    preprocessing += [extractor.network] if extractor.network else []
    parts = [digest(extractor.backbone), str(data.where.resolve()), listing, data.labels.tolist(), preprocessing]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Extractor:
    """Gives the features of a run's data sets, from the cache where it fits.

    `open` gives what maps images (BATCH, 3, H, W) to pooled features (BATCH, C) by the weights `backbone`.
    """

    open: Callable[[], Predict]
    backbone: dict[str, np.ndarray]
    run: Run
    network: dict = field(default_factory=dict)  # what else the features depend on, where it is not as it was always

    def of(self, loader: Loader) -> Features:
        """Features of every readable file. Ranks share the work, the first one writes."""
        run, data = self.run, loader.data
        say, rank = run.journal.line, run.rank
        path = run.folder / files.FEATURES / f"{cache_key(self, data, loader.transforms, loader.cfg)}.npz"
        stored = self._read(path, loader.bad)
        found = rank.total(np.array([stored is not None]))[0]
        if stored is not None and found == rank.count:
            say(f"features of {len(stored[1])} images from {path}")
            return Features(*stored, data.class_to_index)
        feature, label = self._compute(loader)
        if rank.is_first:
            bad_text = json.dumps(loader.bad.reasons)
            files.replace_file(path, lambda temporary: np.savez(temporary, feature=feature, label=label, bad=bad_text))
            say(f"features of {len(label)} images written to {path}")
        return Features(feature, label, data.class_to_index)

    def _read(self, path: Path, bad: stream.BadFiles) -> tuple[np.ndarray, np.ndarray] | None:
        """Features and labels of a cache file, None without a good one; the bad files it knows are noted."""
        try:
            with np.load(path) as stored:
                feature, label, reasons = stored["feature"], stored["label"], json.loads(str(stored["bad"]))
        except FileNotFoundError:
            return None
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
            self.run.journal.line(f"{path} is damaged ({type(error).__name__}); the features are computed again")
            return None
        for file, reason in reasons.items():
            bad.add(file, reason)
        return feature, label

    def _compute(self, loader: Loader) -> tuple[np.ndarray, np.ndarray]:
        """Features and labels in the data's order; each rank computes every `rank.count`-th batch and all get all."""
        rank, data, features, labels, predict = self.run.rank, loader.data, [], [], self.open()
        for image, label in loader.eval_batches(BATCH):
            pooled = predict(image)
            everyone = np.zeros((rank.count, BATCH, pooled.shape[1] + 1), np.float32)
            everyone[rank.index, :, :-1], everyone[rank.index, :, -1] = pooled, label - NO_LABEL
            everyone = rank.total(everyone).reshape(rank.count * BATCH, -1)
            features.append(everyone[:, :-1])
            labels.append(everyone[:, -1].astype(np.int32) + NO_LABEL)
        feature, label = np.concatenate(features)[: len(data)], np.concatenate(labels)[: len(data)]
        good = label != NO_LABEL
        for index in np.flatnonzero(~good):
            loader.bad.add(data.source.name(index), "refused by another rank, whose log says why")
        return feature[good], label[good]
