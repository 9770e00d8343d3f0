"""Batches of MobileNetV2's and SegFormer's data, as the recipes make them."""

from __future__ import annotations

from collections.abc import Iterator

from src.classification.dataset import Loader
from src.engine.data.source import LabelledImages
from src.engine.data.stream import ALONE, BadFiles, Shard
from src.mobilenetv2.dataset import TRANSFORMS
from src.segformer.data import dataset as segmentation
from src.segformer.data.dataset import Pairs


def class_loader(data: LabelledImages, cfg, bad: BadFiles, shard: Shard = ALONE) -> Loader:
    return Loader(data, TRANSFORMS, cfg, bad, shard)


def class_batches(data: LabelledImages, cfg, bad: BadFiles, epoch: int, first_step: int = 0) -> Iterator:
    return class_loader(data, cfg, bad).train_batches(epoch, first_step)


def mask_batches(pairs: Pairs, cfg, bad: BadFiles, epoch: int, first_step: int = 0, shard: Shard = ALONE) -> Iterator:
    return segmentation.Loader(pairs, cfg, bad, shard).train_batches(epoch, first_step)


def mask_samples(pairs: Pairs, cfg, bad: BadFiles, scale: float | None = 1.0, shard: Shard = ALONE) -> Iterator:
    return segmentation.Loader(pairs, cfg, bad, shard).eval_samples(scale)
