"""Scoring a checkpoint or an exported file, and what is written about it; MobileNetV2-quant's too."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from mindspore import nn

from src.engine import device, loop, plots, report
from src.engine.data import stream
from src.engine.data.image_folder import EVAL_FOLDERS, scan
from src.engine.errors import ZooError
from src.engine.export import onnx_model
from src.engine.io import files
from src.engine.io.checkpoint import Checkpoint
from src.engine.metrics import Classification
from src.engine.ranks import Rank
from src.mobilenetv2 import dataset, pretrained
from src.mobilenetv2.config import Config


def run(cfg: Config, open_checkpoint: Callable[[Config], tuple[Checkpoint, nn.Cell]]) -> int:
    """Score a checkpoint, or an exported ONNX file, on every image of a folder; returns the exit status."""
    rank = Rank()
    if cfg.eval_backend == "onnx":
        model = onnx_model.load(Path(cfg.pretrain_ckpt).expanduser(), stream.usable_threads(cfg.num_workers))
        class_to_index, classes, predict = model.class_to_index, model.outputs, model.predict
        # Many images at once, so that threads find parts; whole parts, so that a fixed size costs no padding.
        part = model.batch_size or 1
        batch_size = (cfg.batch_size + part - 1) // part * part
    else:
        rank = device.setup(cfg.platform, cfg.device_id, cfg.run_distribute)
        stored, net = open_checkpoint(cfg)
        class_to_index, classes = stored.meta.get("class_to_index"), pretrained.class_count(stored)
        batch_size = cfg.batch_size
        predict = loop.predictor(net)
    folder = scan(cfg.dataset_path, EVAL_FOLDERS, class_to_index)
    pretrained.require_count(cfg, folder, classes)
    bad = dataset.bad_files(folder, cfg, print)
    began = time.perf_counter()
    batches = dataset.eval_batches(folder, cfg, bad, min(batch_size, len(folder)), rank.index, rank.count)
    metric = loop.evaluate(predict, batches, Classification(classes), rank)
    seconds = time.perf_counter() - began
    if not metric.samples:
        raise ZooError(f"none of the {len(folder)} files in {folder.root} is a usable image; check the data folder")
    names = sorted(folder.class_to_index, key=folder.class_to_index.get)
    print(report.result_line(metric.top1, cfg.pretrain_ckpt))
    print(report.counts_line(metric.top5, metric.samples, len(folder), seconds))
    skipped = len(folder) - metric.samples + len(folder.not_images)
    if skipped:
        print(stream.skipped(skipped))
    if not rank.is_first:
        return 0
    if cfg.per_class_csv:
        files.write_text(Path(cfg.per_class_csv).expanduser(), metric.per_class_csv(names))
    if cfg.confusion_matrix:
        plots.confusion_matrix(metric.confusion, names, Path(cfg.confusion_matrix).expanduser())
    return 0
