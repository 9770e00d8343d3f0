"""Running a run's checkpoint on pictures, with the transforms and the network of evaluation."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from tqdm import tqdm

from src.classification import checkpoints, recipe, targets
from src.classification.classifier import Classifier
from src.classification.dataset import example_batch
from src.engine import device, environment, loop
from src.engine.data import images, stream
from src.engine.data.image_folder import EVAL_FOLDERS, scan
from src.engine.data.source import LabelledImages
from src.engine.errors import ZooError
from src.engine.io.checkpoint import Checkpoint
from src.inspection.run import classes, masks
from src.inspection.run.run_folder import CONFIG, Run
from src.mobilenetv2.classifier import MOBILENETV2
from src.mobilenetv2_quant import checkpoints as quant_checkpoints
from src.mobilenetv2_quant import layer_report
from src.mobilenetv2_quant import recipe as quant_recipe
from src.mobilenetv2_quant.classifier import MOBILENETV2_QUANT
from src.mobilenetv2_quant.integer_graph import Writer
from src.segformer import recipe as segmentation_recipe
from src.segformer.data import dataset
from src.segformer.predicting import prediction
from src.segformer.predicting.segmenter import open_segmenter
from src.zoo import configure

QUANT, SEGMENTATION = "mobilenetv2_quant", "segformer"
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
    model, checkpoint, net = opened(cfg)
    count = checkpoints.class_count(model, checkpoint)
    data = scan(cfg.dataset_path, EVAL_FOLDERS, checkpoint.meta.get("class_to_index"))
    checkpoints.require_count(cfg, data, count)
    predict, size = loop.predictor(net), min(cfg.batch_size, len(data))
    order = stream.evaluation_order(len(data), size)
    rows = []
    batches = stream.batches(sampler(data, model, cfg), order, cfg.num_workers)
    for view, index in progress(batches, len(order), "predicting"):
        padded, _ = targets.pad(view, index, size)
        rows.append((index, predict(padded)[: len(index)]))
    index, scores = (np.concatenate(part) for part in zip(*rows))
    good = index != stream.NO_SAMPLE
    if not good.any():
        raise ZooError(f"none of the {len(data)} files in {data.where} is a usable image; check the data folder")
    return judged(data, index[good], scores[good])


def opened(cfg: Any) -> tuple[Classifier, Checkpoint, Any]:
    """The classifier of a configuration, its checkpoint and its network."""
    if cfg.model == QUANT:
        return (MOBILENETV2_QUANT, *quant_recipe.open_checkpoint(cfg))
    return (MOBILENETV2, *recipe.open_checkpoint(MOBILENETV2, cfg))


def sampler(data: LabelledImages, model: Classifier, cfg: Any) -> Any:
    """`f(index)`: the network's input and the index, which is NO_SAMPLE where the file is no image."""
    size = (cfg.image_height, cfg.image_width)

    def sample(index: int) -> tuple[np.ndarray, np.int64]:
        try:
            return model.transforms.evaluation(images.decode(data.source.read(index)), *size), np.int64(index)
        except images.BadImage:
            return np.zeros((3, *size), np.float32), np.int64(stream.NO_SAMPLE)

    return sample


def judged(data: LabelledImages, index: np.ndarray, scores: np.ndarray) -> classes.Predictions:
    """What the scores (N, K) of the pictures `index` say, beside their labels."""
    truth, predicted = data.labels[index].astype(int), scores.argmax(1)
    shares = np.exp(scores - scores.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    k = min(5, scores.shape[1])
    in_top = (np.argpartition(-scores, k - 1, axis=1)[:, :k] == truth[:, None]).any(1)
    return classes.Predictions(data.source, data.class_names, index, truth, predicted, shares.max(1), in_top5=in_top)


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
    model = writer.graph.model(shape, checkpoints.class_count(MOBILENETV2_QUANT, checkpoint), 1, {})
    data = scan(cfg.dataset_path, EVAL_FOLDERS)
    pictures = example_batch(data, (min(REPORT_IMAGES, len(data)), *shape[1:]), MOBILENETV2_QUANT.transforms)
    return layer_report.measure(model, writer, pictures)
