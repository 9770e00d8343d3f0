"""Reading MobileNetV2 checkpoints: ours and the original model zoo's, and what they say about themselves."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np

from src.engine.data.image_folder import ImageFolder
from src.engine.errors import UsageError, ZooError
from src.engine.io import checkpoint
from src.engine.io.checkpoint import Checkpoint
from src.mobilenetv2.config import Config
from src.mobilenetv2.names import from_model_zoo
from src.mobilenetv2.network import MobileNetV2, build

MODEL = "mobilenetv2"
CLASSIFIER = "head.dense.weight"


def about(cfg: Config, class_to_index: dict[str, int], initial: Checkpoint | None = None) -> dict:
    """What travels with the weights in every checkpoint, and has to be the same when a run is resumed.

    With a frozen backbone that includes the backbone itself, because the features are computed from `initial`.
    """
    frozen = initial is not None and cfg.freeze_layer == "backbone"
    return {
        "frozen_backbone": digest(backbone_of(initial)) if frozen else "",
        "model": MODEL,
        "class_to_index": class_to_index,
        "width_mult": cfg.width_mult,
        "image_size": [cfg.image_height, cfg.image_width],
        "seed": cfg.seed,
        "loss_scale": cfg.loss_scale,
    }


def read(path: str, models: tuple[str, ...] = (MODEL,)) -> Checkpoint:
    """Read a checkpoint of one of `models`; names of the original MindSpore network are translated.

    Raises ZooError for other models.
    """
    stored = checkpoint.read(path)
    model = stored.meta.get("model", MODEL)
    if model not in models:
        wanted = " or ".join(models)
        raise ZooError(f"{path} is a checkpoint of {model}, not of {wanted}; give a {wanted} checkpoint")
    if not stored.meta:
        stored = dataclasses.replace(stored, arrays={from_model_zoo(k): v for k, v in stored.arrays.items()})
    if CLASSIFIER not in stored.arrays:
        raise ZooError(f"{path} has no '{CLASSIFIER}'; it is no {MODEL} checkpoint")
    return stored


def backbone_of(stored: Checkpoint) -> dict[str, np.ndarray]:
    return {name: array for name, array in checkpoint.weights(stored).items() if name.startswith("backbone.")}


def digest(arrays: dict[str, np.ndarray]) -> str:
    """A hash of names, shapes and values."""
    found = hashlib.sha256()
    for name in sorted(arrays):
        found.update(f"{name}{arrays[name].shape}".encode() + arrays[name].tobytes())
    return found.hexdigest()


def class_count(stored: Checkpoint) -> int:
    return stored.arrays[CLASSIFIER].shape[0]


def require_width(stored: Checkpoint, cfg: Config) -> None:
    width = stored.meta.get("width_mult", cfg.width_mult)
    if width != cfg.width_mult:
        raise ZooError(
            f"{stored.path} has width_mult {width} and width_mult is {cfg.width_mult}; give --width_mult {width}"
        )


def require_classes(stored: Checkpoint, class_to_index: dict[str, int]) -> None:
    """The head of the checkpoint has to mean the same classes as the data."""
    if class_count(stored) != len(class_to_index):
        raise ZooError(
            f"{stored.path} was trained on {class_count(stored)} classes and the data has {len(class_to_index)}; "
            "use --filter_head True to start with a new head"
        )
    known = stored.meta.get("class_to_index", class_to_index)
    if known != class_to_index:
        other = next(name for name in class_to_index if known.get(name) != class_to_index[name])
        raise ZooError(
            f"{stored.path} was trained on other classes ('{other}' is not class {class_to_index[other]} there); "
            "use --filter_head True to start with a new head"
        )


def load(net: MobileNetV2, stored: Checkpoint, class_to_index: dict[str, int], cfg: Config) -> str:
    """Start `net` from a checkpoint, without its head where it is replaced; returns a sentence for the log."""
    require_width(stored, cfg)
    new_head = cfg.filter_head or cfg.freeze_layer == "backbone"
    if not new_head:
        require_classes(stored, class_to_index)
    return checkpoint.load(net, checkpoint.weights(stored), str(stored.path), skip="head." if new_head else "")


def network_of(stored: Checkpoint, cfg: Config, activation: str = "None") -> MobileNetV2:
    """The network that a checkpoint holds, for evaluation or export."""
    require_width(stored, cfg)
    net = build(class_count(stored), cfg.width_mult, cfg.seed, activation)
    print(checkpoint.load(net, checkpoint.weights(stored), str(stored.path)))
    note_size(stored, cfg)
    return net


def note_size(stored: Checkpoint, cfg: Config) -> None:
    """Say where a network is used at another input size than it was trained at."""
    size = [cfg.image_height, cfg.image_width]
    if stored.meta.get("image_size", size) != size:
        trained = "x".join(str(pixels) for pixels in stored.meta["image_size"])
        print(f"note: it was trained at {trained} pixels and is used at {size[0]}x{size[1]}")


def require_count(cfg: Config, folder: ImageFolder, outputs: int) -> None:
    """The model, the data and a given num_classes have to agree before anything is counted."""
    if cfg.num_classes and cfg.num_classes != outputs:
        raise UsageError(
            f"num_classes is {cfg.num_classes} and {cfg.pretrain_ckpt} has {outputs} classes; leave num_classes out"
        )
    if len(folder.class_to_index) != outputs:
        raise ZooError(
            f"{folder.root} holds {len(folder.class_to_index)} classes and {cfg.pretrain_ckpt} has {outputs}; "
            "evaluate on the classes it was trained on"
        )
