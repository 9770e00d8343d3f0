"""What gives images their scores per class: the network of a checkpoint, or an exported file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from src.classification import checkpoints
from src.classification.classifier import Classifier
from src.classification.config import Config
from src.classification.inference import Predict
from src.classification.targets import softmax
from src.engine.data import stream
from src.engine.errors import UsageError, ZooError
from src.engine.export import backends
from src.engine.export.exported_model import ExportedModel
from src.engine.io.checkpoint import Checkpoint

AnyConfig = TypeVar("AnyConfig", bound=Config)
OpenCheckpoint = Callable[[AnyConfig], tuple[Checkpoint, Predict]]


@dataclass(frozen=True)
class Scorer:
    """Scores images (N, 3, H, W) float32 as (N, K); `activation` is what they have been through in an exported file.

    `class_to_index` is None where the file does not name its classes. `batch_size` images at a time suit it.
    """

    predict: Predict
    classes: int
    class_to_index: dict[str, int] | None
    batch_size: int
    activation: str = "None"

    @property
    def class_names(self) -> list[str]:
        """In the order of the scores; numbers where the file does not name its classes."""
        known = self.class_to_index or {str(index): index for index in range(self.classes)}
        names = {index: name for name, index in known.items()}
        if sorted(names) != list(range(self.classes)):
            raise ZooError(f"the file names {len(known)} classes and gives scores of {self.classes}; export it again")
        return [names[index] for index in range(self.classes)]

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Images (N, 3, H, W) -> (N, K) float64 in 0..1; those of a sigmoid do not add up to 1."""
        scores = self.predict(images).astype(np.float64)
        if self.activation != "None":
            return scores
        return softmax(scores)


def open_scorer(model: Classifier, cfg: AnyConfig, open_checkpoint: OpenCheckpoint) -> Scorer:
    """What `pretrain_ckpt` holds; for a checkpoint, the device has to be set up."""
    if cfg.eval_backend != "mindspore":
        return _of_exported_file(model, cfg)
    checkpoint, predict = open_checkpoint(cfg)
    classes = checkpoints.class_count(model, checkpoint)
    return Scorer(predict, classes, checkpoint.meta.get("class_to_index"), cfg.batch_size)


def _of_exported_file(model: Classifier, cfg: Config) -> Scorer:
    path, threads = Path(cfg.pretrain_ckpt).expanduser(), stream.usable_threads(cfg.num_workers)
    runtime = backends.load(cfg.eval_backend, path, threads)
    classes = require_classifier(runtime, cfg)
    unsaid = model.older.get("crop_pct", cfg.crop_pct) if runtime.meta else cfg.crop_pct
    crop_pct = runtime.meta.get("crop_pct", unsaid)
    if crop_pct != cfg.crop_pct:
        raise UsageError(
            f"crop_pct is {cfg.crop_pct}, and {path} was trained with {crop_pct}; give --crop_pct {crop_pct}"
        )
    # Many images at once, so that threads find parts; whole parts, so that a fixed size costs no padding.
    part = runtime.batch_size or 1
    batch_size = (cfg.batch_size + part - 1) // part * part
    activation = runtime.meta.get("activation", "None")
    return Scorer(runtime.predict, classes, runtime.class_to_index, batch_size, activation)


def require_classifier(runtime: ExportedModel, cfg: Config) -> int:
    """The number of classes. Raises where a file gives no scores per image, or takes images of another size."""
    classes = runtime.outputs
    if len(runtime.input_shape) != 4 or len(runtime.output_shape) != 2 or classes is None:
        raise ZooError(f"{runtime.path} is no classifier of images: it gives no row of scores per image; use another")
    size, taken = (cfg.image_height, cfg.image_width), runtime.image_size
    if taken and taken != size:
        raise UsageError(
            f"image_height and image_width are {size[0]} and {size[1]}, and {runtime.path} takes images of "
            f"{taken[0]} x {taken[1]}; give --image_height {taken[0]} --image_width {taken[1]}"
        )
    return classes
