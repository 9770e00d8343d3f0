"""Distillation (https://arxiv.org/abs/1503.02531): a trained network's opinion of every batch as a second target."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mindspore import Tensor, ops

from src.classification import checkpoints, inference
from src.classification.classifier import Classifier
from src.classification.config import Config
from src.classification.predicting.scorer import require_classifier
from src.classification.targets import softmax
from src.engine.data import stream
from src.engine.errors import UsageError, ZooError
from src.engine.export import onnx_model
from src.engine.export.onnx_model import OnnxModel

SMALLEST = 1e-9  # of a probability whose logarithm is taken


@dataclass(frozen=True)
class Teacher:
    """A classifier in onnxruntime, `runtime`."""

    runtime: OnnxModel
    temperature: float

    def soft_targets(self, images: np.ndarray) -> np.ndarray:
        """Images (N, 3, H, W) float32 -> softmax(logits / temperature) (N, K) float32."""
        scores = self.runtime.predict(images).astype(np.float64)
        if scores.min() >= 0 and np.abs(scores.sum(1) - 1).max() < 1e-3:  # softmax: the logits are known up to a sum
            scores = np.log(np.maximum(scores, SMALLEST))
        return softmax(scores / self.temperature).astype(np.float32)


def open_teacher(model: Classifier, cfg: Config, class_to_index: dict[str, int]) -> Teacher | None:
    """What --teacher names: an exported file, or a checkpoint of `model`, of any width; None without one.

    Raises ZooError or UsageError where it knows other classes or takes other images.
    """
    if not cfg.teacher:
        return None
    path = Path(cfg.teacher).expanduser()
    threads = stream.usable_threads(cfg.num_workers)
    runtime = onnx_model.load(path, threads) if path.suffix == ".onnx" else _of_checkpoint(model, cfg)
    classes = require_classifier(runtime, cfg)
    if (runtime.class_to_index or class_to_index) != class_to_index or classes != len(class_to_index):
        raise ZooError(
            f"{path} knows {classes} classes, and not those {len(class_to_index)} of {cfg.dataset_path} in their "
            "order; a teacher has to know the same, so train it on this data"
        )
    if runtime.meta.get("activation") == "Sigmoid":
        raise UsageError(f"{path} ends in a sigmoid; export the teacher with --activation None")
    return Teacher(runtime, cfg.distill_temperature)


def _of_checkpoint(model: Classifier, cfg: Config) -> OnnxModel:
    if model.graph is None:
        raise UsageError(f"{cfg.teacher} is a checkpoint, and {model.name} teaches from an ONNX file; export it first")
    checkpoint = checkpoints.read(model, cfg.teacher)
    trained = {key: checkpoint.meta.get(key, model.older.get(key, own)) for key, own in model.metadata(cfg).items()}
    cfg = dataclasses.replace(cfg, **trained)
    net = checkpoints.network_of(model, checkpoint, cfg)
    return inference.in_onnxruntime(model, net, cfg, checkpoint.meta)


def with_soft_targets(arriving: Iterable, teacher: Teacher | None) -> Iterator[tuple[np.ndarray, ...]]:
    """Append the teacher's targets (N, K) to batches of images and targets; nothing without one."""
    for images, target in arriving:
        yield (images, target) if teacher is None else (images, target, teacher.soft_targets(images))


def loss_of(measure: Callable[[Tensor, Tensor], Tensor], cfg: Config) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """(logits, target, soft target) -> (1 - alpha) * loss + alpha * T^2 * cross entropy with the teacher, a scalar."""
    share, temperature = cfg.distill_alpha, cfg.distill_temperature

    def loss(logits: Tensor, target: Tensor, soft: Tensor) -> Tensor:
        taught = -(soft * ops.log_softmax(logits / temperature, 1)).sum(1).mean() * temperature**2
        return measure(logits, target) * (1.0 - share) + taught * share

    return loss
