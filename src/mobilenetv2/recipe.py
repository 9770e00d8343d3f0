"""MobileNetV2's recipes in prose: train, evaluate, export. Each builds plain objects and hands them to the engine."""

from __future__ import annotations

from pathlib import Path

from src.cpu_kernels import rewrite
from src.engine import device
from src.engine.config import to_yaml
from src.engine.data.image_folder import TRAIN_FOLDERS, require_classes, scan
from src.engine.io import checkpoint
from src.engine.io.run import open_run
from src.mobilenetv2 import conversion, evaluation, network, pretrained, work
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
            say(rewrite.accelerate(net, cfg.cpu_kernels))
        job = (work.head if head_only else work.whole)(net, folder, held_out, cfg, run, rank)
        return work.carry_out(job, net, BEST, cfg, run, rank)


def evaluate(cfg: Config) -> int:
    """Score a checkpoint, or an exported ONNX file, on every image of a folder."""
    return evaluation.run(cfg, open_checkpoint)


def open_checkpoint(cfg: Config) -> tuple[checkpoint.Checkpoint, network.MobileNetV2]:
    """The checkpoint to evaluate and its network."""
    stored = pretrained.read(cfg.pretrain_ckpt)
    net = pretrained.network_of(stored, cfg)
    if cfg.platform == "CPU":
        print(rewrite.accelerate(net, cfg.cpu_kernels))
    return stored, net


def export(cfg: Config) -> int:
    """Write MINDIR, ONNX or AIR, read the file back and compare it with the network on random and on real input."""
    device.setup(cfg.platform, cfg.device_id)
    stored = pretrained.read(cfg.ckpt_file)
    net = pretrained.network_of(stored, cfg, activation=cfg.activation)
    return conversion.run(net, stored, cfg)
