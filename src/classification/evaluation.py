"""Scoring a checkpoint or an exported file on every image of a folder, and what is written about it."""

from __future__ import annotations

import time
from pathlib import Path

from src.classification import checkpoints
from src.classification.classifier import Classifier
from src.classification.config import Config
from src.classification.dataset import Loader, bad_files
from src.classification.predicting.scorer import AnyConfig, OpenCheckpoint, open_scorer
from src.engine import device, loop, plots, report
from src.engine.data import stream
from src.engine.data.image_folder import EVAL_FOLDERS, scan
from src.engine.data.source import LabelledImages
from src.engine.errors import ZooError
from src.engine.io import files
from src.engine.metrics import Classification
from src.engine.ranks import Rank


def run(model: Classifier, cfg: AnyConfig, open_checkpoint: OpenCheckpoint) -> int:
    """Score a checkpoint, or an exported ONNX file, on every image of a folder; returns the exit status."""
    rank = Rank()
    if cfg.eval_backend == "mindspore":
        rank = device.setup(cfg.platform, cfg.device_id, cfg.run_distribute, cfg.dtype)
    scorer = open_scorer(model, cfg, open_checkpoint)
    if scorer.class_to_index is None:
        print(f"note: {cfg.pretrain_ckpt} does not name its classes, so they are the folders, sorted by name")
    data = scan(cfg.dataset_path, EVAL_FOLDERS, scorer.class_to_index)
    checkpoints.require_count(cfg, data, scorer.classes)
    loader = Loader(data, model.transforms, cfg, bad_files(data, cfg, print), rank.shard)
    began = time.perf_counter()
    batches = loader.eval_batches(min(scorer.batch_size, len(data)))
    metric = loop.evaluate(scorer.predict, batches, Classification(scorer.classes), rank)
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
