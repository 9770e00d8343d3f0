"""What a comparison of several files of one SegFormer consists of: pairs, and the classes that each file gives them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from src.engine.comparison import Contender, Task
from src.engine.data import stream
from src.engine.metrics import Segmentation
from src.segformer.config import Config
from src.segformer.data.dataset import Loader, Pairs, Sample
from src.segformer.predicting import prediction
from src.segformer.predicting.segmenter import open_segmenter


class MeanIoU(Segmentation):
    """Segmentation's counts; the score is mIoU."""

    @property
    def score(self) -> float:
        return self.miou


def contender(pairs: Pairs, cfg: Config) -> tuple[Contender, Task]:
    """The file that `cfg` names, and what it is compared on."""
    segmenter = open_segmenter(cfg.eval_ckpt_path, cfg)
    segmenter.require_classes_of(pairs)
    predict = segmenter.predictor()

    def classes(sample: Sample) -> np.ndarray:
        return prediction.class_map(predict, sample.picture, sample.image, segmenter.cfg)

    size = cfg.window[0] if cfg.eval_mode == "slide" else cfg.base_size
    example = np.zeros((1, 3, *size), np.float32)
    metric = MeanIoU(len(pairs.classes), pairs.classes.ignore)
    names = segmenter.classes.names if segmenter.classes else (None,) * cfg.class_num
    return Contender(classes, predict, metric, names), Task("mIoU", "pixels", lambda: samples(pairs, cfg), example)


def samples(pairs: Pairs, cfg: Config) -> Iterator[tuple[Any, ...]]:
    """Images with their masks, and which pixels count."""
    loader = Loader(pairs, cfg, stream.BadFiles(cfg.on_bad_image, print))
    for sample in loader.eval_samples(cfg.multi_scale[0]):
        if sample is not None:
            yield sample, sample.mask, sample.mask != pairs.classes.ignore
