"""Batches of labelled images, for training and for evaluation. No MindSpore here."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from src.classification import imbalance, targets
from src.classification.classifier import Transforms
from src.classification.config import Config
from src.classification.targets import NO_LABEL
from src.engine.data import images, stream
from src.engine.data.source import LabelledImages, first_pictures
from src.engine.errors import ZooError


def bad_files(data: LabelledImages, cfg: Config, say: Callable[[str], None]) -> stream.BadFiles:
    """Where files that are no images are named and counted, beginning with those that the listing left out."""
    bad = stream.BadFiles(cfg.on_bad_image, say)
    for file in data.left_out:
        bad.add(file, "not an image file")
    return bad


@dataclass(frozen=True)
class Loader:
    """Reads, transforms and stacks the images of one rank."""

    data: LabelledImages
    transforms: Transforms
    cfg: Config
    bad: stream.BadFiles
    shard: stream.Shard = stream.ALONE

    @functools.cached_property
    def class_weights(self) -> np.ndarray | None:
        """Read once, so that a run keeps its weights whatever becomes of their file."""
        return imbalance.class_weights(self.cfg.class_weights, self.data.labels, self.data.class_to_index)

    def train_batches(self, epoch: int, first_step: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Images (N, 3, H, W) float32 and target probabilities (N, K) float32 of one epoch, from `first_step` on."""
        cfg, data, shard = self.cfg, self.data, self.shard

        def sample(item: tuple[int, tuple[int, bytes | None]]) -> tuple[np.ndarray, np.ndarray]:
            draw, (index, content) = item

            def load(i: int) -> np.ndarray:
                image = images.decode(content if i == index and content is not None else data.source.read(i))
                return self.transforms.train(image, stream.generator(cfg.seed, stream.SAMPLE, epoch, draw), cfg)

            found, view = stream.first_good(load, index, len(data), self.bad, data.source.name)
            return view, data.labels[found]

        order = imbalance.epoch_order(data.labels, cfg, epoch)
        draws = stream.training_order(order, cfg.images_per_step, shard)[first_step:]
        rows = (list(zip(numbers, row)) for numbers, row in zip(draws.tolist(), data.source.rows(draws % len(data))))
        batches = stream.batches(sample, rows, cfg.num_workers)
        for step, (image, label) in enumerate(batches, start=first_step):
            target = targets.smooth_one_hot(label, len(data.class_to_index), cfg.label_smooth)
            target = imbalance.weighted(target, label, self.class_weights)
            rng = stream.generator(cfg.seed, stream.BATCH, epoch, step * shard.count + shard.index)
            yield targets.mix(image, target, rng, cfg)

    def eval_batches(self, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Images (batch_size, 3, H, W) float32 and labels (batch_size,) int32 of every image, in order.

        Files that cannot be read and the padding of the last batch have label NO_LABEL, so that every batch has the
        same shape (one compiled graph) and every readable file is counted once.
        """
        size, data = (self.cfg.image_height, self.cfg.image_width), self.data

        def sample(index: int) -> tuple[np.ndarray, np.int32]:
            if index == stream.NO_SAMPLE:
                return np.zeros((3, *size), np.float32), np.int32(NO_LABEL)
            try:
                image = images.decode(data.source.read(index))
                return self.transforms.evaluation(image, self.cfg), data.labels[index]
            except images.BadImage as error:
                self.bad.add(data.source.name(index), str(error))
                return np.zeros((3, *size), np.float32), np.int32(NO_LABEL)

        order = stream.evaluation_order(len(data), batch_size, self.shard)
        for image, label in stream.batches(sample, order, self.cfg.num_workers):
            yield targets.pad(image, label, batch_size)


def example_batch(data: LabelledImages | None, count: int, transforms: Transforms, cfg: Config) -> np.ndarray:
    """Photographs as network input (count, 3, H, W): the first readable ones of `data`, or scikit-learn's two."""
    if data is None:
        from sklearn.datasets import load_sample_images

        pictures = load_sample_images().images
    else:
        pictures = first_pictures(data.source, count)
        if not pictures:
            raise ZooError(f"none of the {len(data)} files in {data.where} is a usable image; check it")
    return np.stack([transforms.evaluation(pictures[i % len(pictures)], cfg) for i in range(count)])
