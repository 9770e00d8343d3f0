"""Running a run's checkpoint on pictures, with the transforms and the network of evaluation."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from tqdm import tqdm

from src.classification import checkpoints, recipe
from src.classification.classifier import Classifier
from src.classification.dataset import example_batch
from src.classification.predicting.prediction import Predictor
from src.classification.predicting.scorer import OpenCheckpoint, open_scorer
from src.engine import device, environment
from src.engine.data import stream
from src.engine.data.image_folder import EVAL_FOLDERS, scan
from src.engine.data.source import LabelledImages
from src.engine.errors import ZooError
from src.inspection.run import classes, masks
from src.inspection.run.run_folder import CONFIG, Run
from src.mobilenetv2.classifier import MOBILENETV2
from src.mobilenetv2_quant import checkpoints as quant_checkpoints
from src.mobilenetv2_quant import recipe as quant_recipe
from src.mobilenetv2_quant.classifier import MOBILENETV2_QUANT
from src.mobilenetv2_quant.integer_graph import Writer
from src.quantisation import layer_report
from src.segformer import recipe as segmentation_recipe
from src.segformer.data import dataset
from src.segformer.predicting import prediction
from src.segformer.predicting.segmenter import open_segmenter
from src.zoo import configure

QUANT, SEGMENTATION = "mobilenetv2_quant", "segformer"
CLASSIFIERS: dict[
    str, tuple[Classifier, OpenCheckpoint]
] = {  # by the model's name: what the task knows of it, and how its checkpoint is opened
    MOBILENETV2.name: (MOBILENETV2, functools.partial(recipe.open_checkpoint, MOBILENETV2)),
    QUANT: (MOBILENETV2_QUANT, quant_recipe.open_checkpoint),
}
REPORT_IMAGES = 8  # pictures that the noise of layers is measured on


def settings(run: Run, data_path: str) -> Any:
    """The configuration of evaluating the run's checkpoint on pictures, on this machine."""
    is_segmentation = run.model == SEGMENTATION
    keys = ("data_path", "eval_ckpt_path") if is_segmentation else ("dataset_path", "pretrain_ckpt")
    flags = [f"--{keys[0]}", data_path, f"--{keys[1]}", str(run.checkpoint())]
    flags += ["--platform", environment.usable_platform(), "--amp_level", "O0"]
    flags += ["--run_distribute", "False"]
    return configure("eval", ["--config_path", str(run.folder / CONFIG), *flags])


def progress(items: Iterator, count: int, title: str) -> Iterator:
    return iter(tqdm(items, title, total=count, leave=False, disable=not sys.stderr.isatty()))


def classify(cfg: Any) -> classes.Predictions:
    """Predict every picture of the validation data."""
    device.setup(cfg.platform, cfg.device_id)
    model, open_checkpoint = CLASSIFIERS[cfg.model]
    scorer = open_scorer(model, cfg, open_checkpoint)
    data = scan(cfg.dataset_path, EVAL_FOLDERS, scorer.class_to_index)
    checkpoints.require_count(cfg, data, scorer.classes)
    predictor = Predictor(data.source, scorer, model.transforms, cfg, stream.BadFiles("skip", tqdm.write))
    arriving = progress(predictor.scored(), len(data), "predicting")
    rows = [judged(data, index, shares) for index, shares, _ in arriving if index != stream.NO_SAMPLE]
    if not rows:
        raise ZooError(f"none of the {len(data)} files in {data.where} is a usable image; check the data folder")
    return classes.Predictions(data.source, data.class_names, *map(np.array, zip(*rows)))


def judged(data: LabelledImages, index: int, shares: np.ndarray) -> tuple[int, int, int, float, bool]:
    """What the probabilities (K,) of a picture say beside its label; see classes.Predictions."""
    truth, k = int(data.labels[index]), min(5, len(shares))
    in_top5 = truth in np.argpartition(-shares, k - 1)[:k]
    return index, truth, int(shares.argmax()), float(shares.max()), in_top5


def segment(cfg: Any) -> masks.Predictions:
    """Predict the mask of every picture of the validation split."""
    device.setup(cfg.device, cfg.device_id)
    pairs = segmentation_recipe.find(segmentation_recipe.VAL, cfg)
    segmenter = open_segmenter(cfg.eval_ckpt_path, cfg)
    segmenter.require_classes_of(pairs)
    predict = segmenter.predictor()
    loader = dataset.Loader(pairs, cfg, stream.BadFiles("skip", tqdm.write))

    def predictions() -> Iterator[masks.Pair]:
        for sample in progress(loader.eval_samples(cfg.multi_scale[0]), len(pairs), "predicting"):
            if sample is not None:
                found = prediction.class_map(predict, sample.picture, sample.image, cfg)
                yield masks.Pair(sample.file, sample.picture, sample.mask, found)

    found = masks.collect(predictions(), pairs.classes)
    if not found.metric.images:
        raise ZooError(f"none of the {len(pairs)} images in {pairs.where} can be read; check the data folder")
    return found


def noise_of_layers(cfg: Any) -> list[layer_report.Row]:
    """What quantisation does to every tensor of the integer network, on some pictures of the validation data."""
    checkpoint = quant_checkpoints.read(cfg.pretrain_ckpt)
    net = quant_checkpoints.network_of(checkpoint, cfg, tell=False)
    writer = Writer()
    writer.network(net)
    shape = (1, 3, cfg.image_height, cfg.image_width)
    model = writer.model(shape, checkpoints.class_count(MOBILENETV2_QUANT, checkpoint), 1, {})
    data = scan(cfg.dataset_path, EVAL_FOLDERS)
    pictures = example_batch(data, min(REPORT_IMAGES, len(data)), MOBILENETV2_QUANT.transforms, cfg)
    return layer_report.measure(model, writer, pictures)
