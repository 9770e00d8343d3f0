"""SegFormer's recipes in prose: train, evaluate, infer, export. Each builds plain objects and hands them on."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

from src.engine import device, loop
from src.engine.config import to_yaml
from src.engine.data import stream
from src.engine.errors import UsageError, ZooError
from src.engine.io import checkpoint, files
from src.engine.io.run import open_run
from src.engine.steps import mixed
from src.segformer import (
    conversion,
    dataset,
    inference,
    network,
    on_cpu,
    pictures,
    prediction,
    pretrained,
    report,
    work,
)
from src.segformer.class_list import ClassList, read_class_list
from src.segformer.config import Config
from src.segformer.labels import CITYSCAPES

TRAIN, VAL = "train", "val"


def train(cfg: Config) -> int:
    """Train from pretrained weights or from scratch; returns the exit status."""
    began = time.perf_counter()
    rank = device.setup(cfg.device, cfg.device_id, cfg.run_distribute)
    pairs = find(TRAIN, cfg)
    held_out = find(VAL, cfg) if cfg.run_eval else None
    dataset.require_filled_crops(pairs, cfg)
    plan = work.plan(pairs, cfg, rank)
    initial = first_weights(cfg)
    sync_bn = cfg.run_distribute and cfg.device == "Ascend"
    net = network.build(cfg.backbone, cfg.class_num, cfg.decoder_dim, cfg.seed, sync_bn)
    loaded = pretrained.load(net, initial, cfg) if initial else "weights start anew"
    prefix = f"segformer_{cfg.backbone}"
    names, best_file = checkpoint.Names(prefix, "{prefix}_{epoch}.ckpt"), f"{prefix}_best.ckpt"
    about, output = pretrained.about(cfg, pairs.classes), Path(cfg.checkpoint_path).expanduser()
    used = cfg.pretrained_ckpt_path if initial else ""
    with open_run(output, names, best_file, cfg.resume, about, to_yaml(cfg), used, rank) as run:
        say = run.journal.line
        say(report.train_size_line(len(pairs)))
        say(f"{len(pairs.classes)} classes in {pairs.root}; {loaded}")
        if padding := dataset.padding_line(pairs, cfg):
            say(padding)
        if cfg.device == "CPU":
            say(on_cpu.accelerate(net, cfg.cpu_kernels))
        optimizer = work.optimizer(net, cfg)
        scale = mixed.DynamicScale() if cfg.mixed_precision else None
        step = work.train_step(net, pairs.classes, optimizer, scale, cfg, rank)
        state = work.state(net, optimizer, scale)
        bad = [stream.BadFiles(cfg.on_bad_image, say) for _ in (TRAIN, VAL)]
        share = dataclasses.replace(cfg, batch_size=cfg.batch_size // rank.count)
        batches = work.batches(pairs, share, bad[0], net.decode_head.width, rank)
        evaluate_now = work.evaluation(net, held_out, cfg, bad[1], run, best_file, rank) if held_out else None
        start = run.restore(state, plan, best_file)
        if cfg.resume == "auto" and start == loop.Position() and cfg.load_ckpt and initial is None:
            raise ZooError(f"no checkpoint in {output} can be used; give --pretrained_ckpt_path to start from")

        def save(position: loop.Position) -> None:
            if cfg.save_checkpoint:
                run.save(state, position, plan, cfg.keep_checkpoint_max)

        try:
            lines = work.lines(step, start)
            loop.train(step, batches, plan, start, run.journal, save, evaluate_now, lines, rank)
        except loop.Stop as stop:
            saved = "the state is saved, --resume auto goes on from here" if cfg.save_checkpoint else "nothing is saved"
            say(f"stopped by {stop}; {saved}")
            return 128 + stop.signal_number
        work.finish(bad, run)
        say(f"all train process done, cost:{time.perf_counter() - began:.0f}s")
    return 0


def first_weights(cfg: Config) -> checkpoint.Checkpoint | None:
    """The checkpoint to start from; None where there is none to be, or where it is gone and the run goes on anyway."""
    is_gone = cfg.resume == "auto" and cfg.has_checkpoints and not Path(cfg.pretrained_ckpt_path).expanduser().is_file()
    if not cfg.load_ckpt or cfg.resume not in ("", "auto") or is_gone:
        return None
    return pretrained.read(cfg.pretrained_ckpt_path)


def find(split: str, cfg: Config) -> dataset.Pairs:
    """The images and labels of a split, whose classes have to be as many as the configuration says."""
    pairs = dataset.find_pairs(cfg.data_path, split, cfg.class_list, cfg.on_missing_label)
    pairs.classes.require(cfg.class_num, cfg.dataset_ignore_label)
    if pairs.without_mask:
        print(f"{len(pairs.without_mask)} images of {split} have no label and are left out")
    return pairs


def predictor(stored: checkpoint.Checkpoint, cfg: Config) -> prediction.Predict:
    """Image (1, 3, h, w) -> coarse logits with the network of a checkpoint."""
    net = pretrained.network_of(stored, cfg)
    print(f"loaded {stored.path}")
    if cfg.device == "CPU":
        print(on_cpu.accelerate(net, cfg.cpu_kernels))
    return loop.predictor(network.QuarterLogits(net))


def evaluate(cfg: Config) -> int:
    """Score a checkpoint on every image of the validation split, at the size of the labels."""
    began = time.perf_counter()
    rank = device.setup(cfg.device, cfg.device_id, cfg.run_distribute)
    pairs = find(VAL, cfg)
    stored = pretrained.read(cfg.eval_ckpt_path)
    known = pretrained.classes_of(stored)
    if known is not None and known.names != pairs.classes.names:
        raise ZooError(
            f"{stored.path} was trained on other classes ({', '.join(known.names[:5])}, ...) than {pairs.root} has; "
            "evaluate on the classes it was trained on"
        )
    predict = predictor(stored, cfg)
    bad = stream.BadFiles(cfg.on_bad_image, print)
    since = time.perf_counter()
    metric = work.score(predict, pairs, cfg, bad, print, rank)
    work.tell(metric, pairs, stored.path.name, time.perf_counter() - since, print)
    if bad.reasons:
        print(bad.summary())
    if not rank.is_first:
        return 0
    if cfg.per_class_csv:
        files.write_text(Path(cfg.per_class_csv).expanduser(), metric.per_class_csv(pairs.classes.names))
    if cfg.eval_json:
        files.write_text(Path(cfg.eval_json).expanduser(), metric.json(pairs.classes.names))
    print(report.eval_done_line(time.perf_counter() - began))
    return 0


def classes_to_draw(stored: checkpoint.Checkpoint, cfg: Config) -> ClassList:
    """Names and colours: those of class_list, or of the checkpoint, or Cityscapes'."""
    if cfg.class_list:
        classes = read_class_list(Path(cfg.class_list).expanduser())
    else:
        classes = pretrained.classes_of(stored) or CITYSCAPES
        if classes is CITYSCAPES and cfg.class_num != len(CITYSCAPES):
            raise UsageError(
                f"class_num is {cfg.class_num} and {stored.path} does not name its classes; "
                "give --class_list FILE with their names and colours"
            )
    classes.require(cfg.class_num, cfg.dataset_ignore_label)
    return classes


def infer(cfg: Config) -> int:
    """Write pictures of what a checkpoint sees, each at the size of its image."""
    began = time.perf_counter()
    device.setup(cfg.device, cfg.device_id)
    output = Path(cfg.infer_output_path).expanduser()
    inputs = pictures.list_inputs(cfg.data_path, str(output))
    stored = pretrained.read(cfg.infer_ckpt_path)
    classes = classes_to_draw(stored, cfg)
    predict = predictor(stored, cfg)
    print(report.infer_size_line(len(inputs), str(output.resolve())))
    bad = stream.BadFiles(cfg.on_bad_image, print)
    pictures.save_png(output / pictures.LEGEND, pictures.legend(classes))
    inference.segment(inputs, predict, output, classes, cfg, bad)
    if bad.reasons:
        print(bad.summary())
    if len(bad.reasons) == len(inputs):
        raise ZooError(f"none of the {len(inputs)} images can be read; check {cfg.data_path}")
    print(report.infer_done_line(time.perf_counter() - began))
    return 0


def export(cfg: Config) -> int:
    """Write AIR, MINDIR or ONNX, read the file back and compare it with the network."""
    device.setup(cfg.device, cfg.device_id)
    stored = pretrained.read(cfg.export_ckpt_path)
    about = {**stored.meta, "image_size": list(cfg.base_size), "mean": cfg.img_norm_mean, "std": cfg.img_norm_std}
    write = conversion.write_any_size if cfg.dynamic_size else conversion.write_fixed_size
    path, found = write(stored, cfg, about)
    for kind, difference in found.items():
        print(f"largest difference to the network on {kind} input: {difference:.3g}")
    print(f"exported {path} ({path.stat().st_size / 1e6:.1f} MB)")
    return 0
