"""The recipes of every image classifier in prose: train, evaluate, infer, export."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from src.classification import checkpoints, conversion, distillation, evaluation, inference, training
from src.classification.classifier import Classifier
from src.classification.config import Config
from src.classification.inference import Predict
from src.classification.predicting import comparing, prediction
from src.cpu_kernels import rewrite
from src.engine import device, loop, precision
from src.engine.comparison import Contender, Task
from src.engine.config import to_yaml
from src.engine.data.image_folder import TRAIN_FOLDERS, require_classes, scan
from src.engine.io.checkpoint import Checkpoint, Names
from src.engine.io.run import RunSettings, open_run
from src.engine.training import run_training


def train(model: Classifier, cfg: Config) -> int:
    """Train from scratch, fine-tune everything, or train the head on cached features; returns the exit status."""
    rank = device.setup(cfg.platform, cfg.device_id, cfg.run_distribute, cfg.dtype)
    images = scan(cfg.dataset_path, TRAIN_FOLDERS, indexes=training.indexes(cfg))
    classes = require_classes(images, cfg.num_classes)
    training.require_trainable(images, cfg, rank)
    held_out = training.validation_data(images, cfg) if cfg.run_eval else None
    data = training.Data(images, held_out, distillation.open_teacher(model, cfg, images.class_to_index))
    initial = checkpoints.read(model, cfg.first_weights) if cfg.first_weights else None
    net = precision.apply(model.build(classes, cfg, "None"), cfg.dtype)
    loaded = "weights start anew"
    if initial is not None:
        loaded = checkpoints.load(model, net, initial, images.class_to_index, cfg)
    metadata = checkpoints.metadata(model, cfg, images.class_to_index, initial)
    with open_run(run_settings(model, cfg, metadata), rank) as run:
        run.journal.line(f"{len(images)} images of {classes} classes in {images.where}; {loaded}")
        is_head_only = cfg.freeze_layer == "backbone"
        if cfg.platform == "CPU" and not (is_head_only and inference.is_by_onnxruntime(model, cfg)):
            run.journal.line(rewrite.accelerate(net, cfg.cpu_kernels, dtype=cfg.kernel_dtype))
        return run_training((training.head if is_head_only else training.full_network)(model, net, data, cfg, run), run)


def run_settings(model: Classifier, cfg: Config, metadata: dict, other_results: tuple[str, ...] = ()) -> RunSettings:
    """The run folder's files and rules."""
    is_gone = cfg.pretrain_ckpt and not cfg.first_weights
    head_only = Names(f"{model.name}_head", "{prefix}_{epoch}.ckpt")
    return RunSettings(
        folder=Path(cfg.save_checkpoint_path).expanduser(),
        names=head_only if cfg.freeze_layer == "backbone" else Names(model.name),
        best_file=f"{model.name}-best.ckpt",
        metadata=metadata,
        config_text=to_yaml(cfg),
        resume=cfg.resume,
        started_from=cfg.pretrain_ckpt,
        needs_checkpoint=f"{cfg.pretrain_ckpt} is no file; start with another --pretrain_ckpt" if is_gone else "",
        other_results=other_results,
        save=cfg.save_checkpoint,
        keep=cfg.keep_checkpoint_max,
    )


def evaluate(model: Classifier, cfg: Config) -> int:
    """Score a checkpoint, or an exported ONNX file, on every image of a folder."""
    return evaluation.run(model, cfg, partial(open_checkpoint, model))


def infer(model: Classifier, cfg: Config) -> int:
    """Name the likeliest classes of images, by a checkpoint or an exported ONNX file."""
    return prediction.run(model, cfg, partial(open_checkpoint, model))


def contender(model: Classifier, cfg: Config) -> tuple[Contender, Task]:
    """A checkpoint, computed by MindSpore, or an exported file, to be compared with others."""
    return comparing.contender(model, cfg, partial(open_checkpoint, model, by_mindspore=True))


def open_checkpoint(model: Classifier, cfg: Config, by_mindspore: bool = False) -> tuple[Checkpoint, Predict]:
    """The checkpoint to score with, and what does."""
    checkpoint = checkpoints.read(model, cfg.pretrain_ckpt)
    net = precision.apply(checkpoints.network_of(model, checkpoint, cfg), cfg.dtype)
    if inference.is_by_onnxruntime(model, cfg) and not by_mindspore:
        return checkpoint, inference.predictor(model, net, cfg)
    if cfg.platform == "CPU":
        print(rewrite.accelerate(net, cfg.cpu_kernels))
    return checkpoint, loop.predictor(net)


def export(model: Classifier, cfg: Config) -> int:
    """Write MINDIR (with ONNX beside it), ONNX or AIR and compare what can be read back with the network."""
    device.setup(cfg.platform, cfg.device_id)
    checkpoint = checkpoints.read(model, cfg.ckpt_file)
    net = checkpoints.network_of(model, checkpoint, cfg, cfg.activation)
    conversion.run(model, net, checkpoint, cfg)
    if cfg.file_format == "MINDIR":
        conversion.run(model, net, checkpoint, conversion.beside(cfg))
    return 0
