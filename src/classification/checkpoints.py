"""Checkpoints of classifiers: what they say about themselves, and whether they fit the data and the settings."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
from mindspore import nn

from src.classification.classifier import Classifier
from src.classification.config import Config
from src.engine.data.source import LabelledImages
from src.engine.errors import UsageError, ZooError
from src.engine.io import checkpoint as files
from src.engine.io.checkpoint import Checkpoint


def metadata(model: Classifier, cfg: Config, class_to_index: dict[str, int], initial: Checkpoint | None = None) -> dict:
    """What travels with the weights in every checkpoint, and has to be the same when a run is resumed.

    With a frozen backbone that includes the backbone itself, because the features are computed from `initial`.
    """
    frozen_backbone = ""
    if initial is not None and cfg.freeze_layer == "backbone":
        frozen_backbone = digest(backbone_of(initial))
    return {
        "frozen_backbone": frozen_backbone,
        "model": model.name,
        "class_to_index": class_to_index,
        **model.metadata(cfg),
        "image_size": [cfg.image_height, cfg.image_width],
        "seed": cfg.seed,
        "sampler": cfg.sampler,
        "loss_scale": cfg.loss_scale,
        "boost_mode": cfg.boost_mode,
        "optimizer": cfg.optimizer,
        "teacher": teacher_of(cfg),
    }


def teacher_of(cfg: Config) -> list:
    """Which teacher, and how much of it; empty without one."""
    if not cfg.teacher:
        return []
    content = Path(cfg.teacher).expanduser().read_bytes()
    return [hashlib.sha256(content).hexdigest()[:16], cfg.distill_alpha, cfg.distill_temperature]


def read(model: Classifier, path: str, others: tuple[str, ...] = ()) -> Checkpoint:
    """Read a checkpoint of `model`, or of `others`; names of the original MindSpore network are translated.

    Raises ZooError for other models.
    """
    checkpoint = files.read(path)
    found, models = checkpoint.meta.get("model", model.name), (model.name, *others)
    if found not in models:
        wanted = " or ".join(models)
        raise ZooError(f"{path} is a checkpoint of {found}, not of {wanted}; give a {wanted} checkpoint")
    if not checkpoint.meta:
        arrays = {model.translate(name): array for name, array in checkpoint.arrays.items()}
        checkpoint = dataclasses.replace(checkpoint, arrays=arrays)
    if model.classifier not in checkpoint.arrays:
        raise ZooError(f"{path} has no '{model.classifier}'; it is no {model.name} checkpoint")
    return checkpoint


def backbone_of(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    return {name: array for name, array in files.weights(checkpoint).items() if name.startswith("backbone.")}


def digest(arrays: dict[str, np.ndarray]) -> str:
    """A hash of names, shapes and values."""
    found = hashlib.sha256()
    for name in sorted(arrays):
        found.update(f"{name}{arrays[name].shape}".encode() + arrays[name].tobytes())
    return found.hexdigest()


def class_count(model: Classifier, checkpoint: Checkpoint) -> int:
    return checkpoint.arrays[model.classifier].shape[0]


def require_network(model: Classifier, checkpoint: Checkpoint, cfg: Config, free: tuple[str, ...] = ()) -> None:
    """The settings that make the network have to be the checkpoint's; one in `free` may differ, which is said."""
    for key, value in model.metadata(cfg).items():
        before = checkpoint.meta.get(key, model.older.get(key, value))
        if before != value and key not in free:
            raise ZooError(f"{checkpoint.path} has {key} {before} and {key} is {value}; give --{key} {before}")
        if before != value:
            print(f"note: it was trained with {key} {before} and goes on with {value}")


def require_classes(model: Classifier, checkpoint: Checkpoint, class_to_index: dict[str, int]) -> None:
    """The head of the checkpoint has to mean the same classes as the data."""
    count = class_count(model, checkpoint)
    if count != len(class_to_index):
        raise ZooError(
            f"{checkpoint.path} was trained on {count} classes and the data has {len(class_to_index)}; "
            "use --filter_head True to start with a new head"
        )
    known = checkpoint.meta.get("class_to_index", class_to_index)
    if known != class_to_index:
        other = next(name for name in class_to_index if known.get(name) != class_to_index[name])
        raise ZooError(
            f"{checkpoint.path} was trained on other classes ('{other}' is not class {class_to_index[other]} there); "
            "use --filter_head True to start with a new head"
        )


def load(model: Classifier, net: nn.Cell, checkpoint: Checkpoint, class_to_index: dict[str, int], cfg: Config) -> str:
    """Start `net` from a checkpoint, without its head where it is replaced; returns a sentence for the log."""
    require_network(model, checkpoint, cfg, model.may_change)
    new_head = cfg.filter_head or cfg.freeze_layer == "backbone"
    if not new_head:
        require_classes(model, checkpoint, class_to_index)
    return files.load(net, files.weights(checkpoint), str(checkpoint.path), skip="head." if new_head else "")


def network_of(model: Classifier, checkpoint: Checkpoint, cfg: Config, activation: str = "None") -> nn.Cell:
    """The network that a checkpoint holds, for evaluation or export."""
    require_network(model, checkpoint, cfg)
    net = model.build(class_count(model, checkpoint), cfg, activation)
    print(files.load(net, files.weights(checkpoint), str(checkpoint.path)))
    note_size(checkpoint, cfg)
    return net


def note_size(checkpoint: Checkpoint, cfg: Config) -> None:
    """Say where a network is used at another input size than it was trained at."""
    size = [cfg.image_height, cfg.image_width]
    if checkpoint.meta.get("image_size", size) != size:
        trained = "x".join(str(pixels) for pixels in checkpoint.meta["image_size"])
        print(f"note: it was trained at {trained} pixels and is used at {size[0]}x{size[1]}")


def require_count(cfg: Config, data: LabelledImages, outputs: int) -> None:
    """The model, the data and a given num_classes have to agree before anything is counted."""
    if cfg.num_classes and cfg.num_classes != outputs:
        raise UsageError(
            f"num_classes is {cfg.num_classes} and {cfg.pretrain_ckpt} has {outputs} classes; leave num_classes out"
        )
    if len(data.class_to_index) != outputs:
        raise ZooError(
            f"{data.where} holds {len(data.class_to_index)} classes and {cfg.pretrain_ckpt} has {outputs}; "
            "evaluate on the classes it was trained on"
        )
