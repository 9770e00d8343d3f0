"""MobileNetV2's recipes in prose: train, evaluate, export. Each builds plain objects and hands them to the engine."""

from __future__ import annotations

import time
from pathlib import Path

from src.engine import checkpoint, device, exporting, files, loop, onnx_model, plots, report, step, stream
from src.engine.config import to_yaml
from src.engine.cpu_kernels import cells
from src.engine.errors import ZooError
from src.engine.image_folder import EVAL_FOLDERS, TRAIN_FOLDERS, require_classes, scan
from src.engine.metrics import Classification
from src.engine.ranks import Rank
from src.engine.run import open_run
from src.mobilenetv2 import dataset, network, pretrained, work
from src.mobilenetv2.config import Config

NAMES = checkpoint.Names("mobilenetv2")
HEAD_NAMES = checkpoint.Names("mobilenetv2_head", "{prefix}_{epoch}.ckpt")
BEST = "mobilenetv2-best.ckpt"


def train(cfg: Config) -> int:
    """Train from scratch, fine-tune everything, or train the head on cached features; returns the exit status."""
    rank = device.setup(cfg.platform, cfg.device_id, cfg.run_distribute, cfg.enable_graph_kernel)
    folder = scan(cfg.dataset_path, TRAIN_FOLDERS)
    classes = require_classes(folder, cfg.num_classes)
    held_out = work.validation_folder(folder, cfg) if cfg.run_eval else None
    work.require_full_batch(len(folder), cfg, rank)
    initial = pretrained.read(cfg.pretrain_ckpt) if cfg.pretrain_ckpt else None
    head_only = cfg.freeze_layer == "backbone"
    names = HEAD_NAMES if head_only else NAMES
    net = network.build(classes, cfg.width_mult, cfg.seed)
    loaded = pretrained.load(net, initial, folder.class_to_index, cfg) if initial else "weights start anew"
    about = pretrained.about(cfg, folder.class_to_index, initial)
    output = Path(cfg.save_checkpoint_path).expanduser()
    with open_run(output, names, BEST, cfg.resume, about, to_yaml(cfg), cfg.pretrain_ckpt, rank) as run:
        say = run.journal.line
        say(f"{len(folder)} images of {classes} classes in {folder.root}; {loaded}")
        if cfg.platform == "CPU":
            say(cells.accelerate(net, cfg.cpu_kernels))
        job = (work.head if head_only else work.whole)(net, folder, held_out, cfg, run, rank)
        optimizer = step.momentum_optimizer(job.net, cfg.momentum, cfg.weight_decay)
        average = step.moving_average_of(optimizer.parameters) if cfg.ema_decay else None
        plan = work.plan(job, cfg, rank)
        train_step = work.train_step(job, plan, optimizer, average, cfg, run, rank)
        state = step.state_of(net, optimizer, average)
        start = run.restore(state, plan, BEST)

        if start.epoch >= cfg.epoch_size:
            say(f"nothing left to do: {start.epoch} of {cfg.epoch_size} epochs are done")
            work.finish(job, run)
            return 0

        def save(position: loop.Position) -> None:
            if cfg.save_checkpoint:
                run.save(state, position, plan, cfg.keep_checkpoint_max)

        def evaluate_now(position: loop.Position) -> loop.Score:
            with step.averaged(optimizer.parameters, average):
                metric = job.evaluate()
                if metric.top1 > position.best and cfg.save_checkpoint:
                    weights = checkpoint.arrays_of(net.get_parameters())
                    run.save_weights(BEST, weights, metric.top1)
            return loop.Score(metric.top1, {"top1": metric.top1, "top5": metric.top5, "samples": metric.samples})

        try:
            measure = evaluate_now if job.evaluate else None
            loop.train(train_step, job.batches, plan, start, run.journal, save, measure, rank=rank)
        except loop.Stop as stop:
            saved = "the state is saved, --resume auto goes on from here" if cfg.save_checkpoint else "nothing is saved"
            say(f"stopped by {stop}; {saved}")
            return 128 + stop.signal_number
        work.finish(job, run)
    return 0


def evaluate(cfg: Config) -> int:
    """Score a checkpoint, or an exported ONNX file, on every image of a folder."""
    rank = Rank()
    if cfg.eval_backend == "onnx":
        model = onnx_model.load(Path(cfg.pretrain_ckpt).expanduser(), stream.usable_threads(cfg.num_workers))
        class_to_index, classes, predict = model.class_to_index, model.outputs, model.predict
        batch_size = model.batch_size or cfg.batch_size
    else:
        rank = device.setup(cfg.platform, cfg.device_id, cfg.run_distribute)
        stored = pretrained.read(cfg.pretrain_ckpt)
        class_to_index, classes = stored.meta.get("class_to_index"), pretrained.class_count(stored)
        batch_size = cfg.batch_size
        net = pretrained.network_of(stored, cfg)
        if cfg.platform == "CPU":
            print(cells.accelerate(net, cfg.cpu_kernels))
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


def export(cfg: Config) -> int:
    """Write MINDIR, ONNX or AIR, read the file back and compare it with the network on random and on real input."""
    device.setup(cfg.platform, cfg.device_id)
    stored = pretrained.read(cfg.ckpt_file)
    net = pretrained.network_of(stored, cfg, activation=cfg.activation)
    folder = scan(cfg.dataset_path, EVAL_FOLDERS) if cfg.dataset_path else None
    shape = (cfg.batch_size_export, 3, cfg.image_height, cfg.image_width)
    about = {**stored.meta, "activation": cfg.activation, "image_size": [cfg.image_height, cfg.image_width]}
    inputs = {"random": exporting.random_input(shape, cfg.seed), "real": dataset.example_batch(folder, shape)}
    if cfg.dynamic_batch:
        larger = (cfg.batch_size_export + 1, *shape[1:])
        inputs[f"random (batch {larger[0]})"] = exporting.random_input(larger, cfg.seed)
    file = Path(cfg.file_name).expanduser()
    exported, found = exporting.export(net, file, cfg.file_format, about, inputs, cfg.dynamic_batch)
    for kind, difference in found.items():
        print(f"largest difference to the network on {kind} input: {difference:.3g}")
    print(f"exported {exported} ({exported.stat().st_size / 1e6:.1f} MB)")
    return 0
