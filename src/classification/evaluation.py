"""Scoring a checkpoint or an exported file on every image of a folder, and what is written about it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from mindspore import nn

from src.classification import checkpoints
from src.classification.classifier import Classifier
from src.classification.config import Config
from src.classification.dataset import Loader, bad_files
from src.classification.extraction import Predict
from src.engine import device, loop, plots, report
from src.engine.data import stream
from src.engine.data.image_folder import EVAL_FOLDERS, scan
from src.engine.data.source import LabelledImages
from src.engine.errors import ZooError
from src.engine.export import onnx_model
from src.engine.io import files
from src.engine.io.checkpoint import Checkpoint
from src.engine.metrics import Classification
from src.engine.ranks import Rank

AnyConfig = TypeVar("AnyConfig", bound=Config)


def run(model: Classifier, cfg: AnyConfig, open_checkpoint: Callable[[AnyConfig], tuple[Checkpoint, nn.Cell]]) -> int:
    """Score a checkpoint, or an exported ONNX file, on every image of a folder; returns the exit status."""
    rank = Rank()
    predict: Predict
    if cfg.eval_backend == "onnx":
        runtime = onnx_model.load(Path(cfg.pretrain_ckpt).expanduser(), stream.usable_threads(cfg.num_workers))
        class_to_index, classes, predict = runtime.class_to_index, runtime.outputs, runtime.predict
        # Many images at once, so that threads find parts; whole parts, so that a fixed size costs no padding.
        part = runtime.batch_size or 1
        batch_size = (cfg.batch_size + part - 1) // part * part
    else:
        rank = device.setup(cfg.platform, cfg.device_id, cfg.run_distribute, cfg.dtype)
        checkpoint, net = open_checkpoint(cfg)
        class_to_index, classes = checkpoint.meta.get("class_to_index"), checkpoints.class_count(model, checkpoint)
        batch_size = cfg.batch_size
        predict = loop.predictor(net)
    data = scan(cfg.dataset_path, EVAL_FOLDERS, class_to_index)
    checkpoints.require_count(cfg, data, classes)
    loader = Loader(data, model.transforms, cfg, bad_files(data, cfg, print), rank.shard)
    began = time.perf_counter()
    batches = loader.eval_batches(min(batch_size, len(data)))
    metric = loop.evaluate(predict, batches, Classification(classes), rank)
    seconds = time.perf_counter() - began
    if not metric.samples:
        raise ZooError(f"none of the {len(data)} files in {data.where} is a usable image; check the data folder")
    tell(metric, data, cfg, seconds)
    if rank.is_first:
        write(metric, data.class_names, cfg)
    return 0


def tell(metric: Classification, data: LabelledImages, cfg: Config, seconds: float) -> None:
    """The result in the documented lines."""
    print(report.result_line(metric.top1, cfg.pretrain_ckpt))
    print(report.counts_line(metric.top5, metric.samples, len(data), seconds))
    skipped = len(data) - metric.samples + len(data.left_out)
    if skipped:
        print(stream.skipped(skipped))


def write(metric: Classification, names: list[str], cfg: Config) -> None:
    """The files that the configuration asks for."""
    if cfg.per_class_csv:
        files.write_text(Path(cfg.per_class_csv).expanduser(), metric.per_class_csv(names))
    if cfg.confusion_matrix:
        plots.confusion_matrix(metric.confusion, names, Path(cfg.confusion_matrix).expanduser())
