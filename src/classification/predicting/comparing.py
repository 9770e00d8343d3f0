"""What a comparison of several files of one classifier consists of: images, and the class that each file gives them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from src.classification import checkpoints
from src.classification.classifier import Classifier
from src.classification.config import Config
from src.classification.dataset import Loader, bad_files
from src.classification.predicting.scorer import AnyConfig, OpenCheckpoint, Scorer, open_scorer
from src.engine.comparison import Contender, Task
from src.engine.data.image_folder import EVAL_FOLDERS, scan


class Top1:
    """The share of images whose class is found."""

    def __init__(self) -> None:
        self.right = self.seen = 0

    def update(self, predicted: np.ndarray, truth: np.ndarray) -> None:
        """Classes (N,); a true one below 0 does not count."""
        self.right += int((predicted == truth).sum())
        self.seen += int((truth >= 0).sum())

    @property
    def score(self) -> float:
        return self.right / max(self.seen, 1)


def contender(model: Classifier, cfg: AnyConfig, open_checkpoint: OpenCheckpoint) -> tuple[Contender, Task]:
    """The file that `cfg` names, and what it is compared on."""
    scorer = open_scorer(model, cfg, open_checkpoint)
    names = scorer.class_names if scorer.class_to_index else [None] * scorer.classes

    def classes(images: np.ndarray) -> np.ndarray:
        return scorer.predict(images).argmax(1)

    task = Task(
        score="top-1",
        unit="images",
        samples=lambda: samples(model, scorer, cfg),
        example=np.zeros((1, 3, cfg.image_height, cfg.image_width), np.float32),
    )
    return Contender(classes, scorer.predict, Top1(), tuple(names)), task


def samples(model: Classifier, scorer: Scorer, cfg: Config) -> Iterator[tuple[np.ndarray, ...]]:
    """Batches of images, their classes, and which of them count."""
    data = scan(cfg.dataset_path, EVAL_FOLDERS, scorer.class_to_index)
    checkpoints.require_count(cfg, data, scorer.classes)
    loader = Loader(data, model.transforms, cfg, bad_files(data, cfg, print))
    for images, label in loader.eval_batches(min(cfg.batch_size, len(data))):
        yield images, label, label >= 0
