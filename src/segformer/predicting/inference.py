"""The loop of infer.py: read images, predict their classes, write their pictures. No MindSpore here."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from src.engine.data import images, stream
from src.segformer import report
from src.segformer.config import Config
from src.segformer.data import dataset
from src.segformer.data.class_list import ClassList
from src.segformer.predicting import pictures, prediction


class Read(NamedTuple):
    """An input that could be read."""

    item: pictures.Input
    picture: np.ndarray  # (H, W, 3) uint8 RGB
    view: np.ndarray  # (3, h, w) float32, the network's input


def read_all(inputs: list[pictures.Input], cfg: Config, bad: stream.BadFiles) -> Iterator[Read | None]:
    """Every input in order; None for one that cannot be read."""
    for item in inputs:
        try:
            picture = images.decode(item.read())
        except images.BadImage as error:
            bad.add(str(item.path), str(error))
            yield None
        else:
            yield Read(item, picture, dataset.eval_transform(picture, cfg, cfg.multi_scale[0]))


def segment(
    inputs: list[pictures.Input],
    predict: prediction.Predict,
    output: Path,
    classes: ClassList,
    cfg: Config,
    bad: stream.BadFiles,
) -> None:
    """Write the wanted pictures of every input, `infer_batch_size` at a time; says how far it is."""
    wanted = pictures.Wanted(
        cfg.infer_copy_original_img,
        cfg.infer_save_gray_img,
        cfg.infer_save_color_img,
        cfg.infer_save_overlap_img,
        cfg.infer_save_label_ids,
    )
    since, counted, waiting = time.perf_counter(), 0, []
    arriving = tqdm(read_all(inputs, cfg, bad), total=len(inputs), unit="image", leave=False, disable=None)
    for done, read in enumerate(arriving, start=1):
        waiting += [read] if read is not None else []
        if waiting and (len(waiting) == cfg.infer_batch_size or done == len(inputs)):
            found = prediction.class_maps(predict, [r.picture for r in waiting], [r.view for r in waiting], cfg)
            for (item, picture, _), predicted in zip(waiting, found):
                pictures.write(item, picture, predicted, output, classes, wanted)
            waiting = []
        if done % cfg.infer_log_interval == 0:
            cost = 1000 * (time.perf_counter() - since) / (done - counted)
            tqdm.write(report.infer_progress_line(done, len(inputs), cost))
            since, counted = time.perf_counter(), done
