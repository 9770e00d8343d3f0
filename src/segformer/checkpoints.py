"""Reading SegFormer checkpoints, and what they say about themselves."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from src.engine.errors import UsageError, ZooError
from src.engine.io import checkpoint as files
from src.engine.io.checkpoint import Checkpoint
from src.segformer import names
from src.segformer.config import Config
from src.segformer.data.class_list import ClassList
from src.segformer.network import SegFormer, build
from src.segformer.quantised.network import activation_quantisers, quantise
from src.segformer.variants import decoder_width

MODEL = "segformer"
STORED_RECIPES = {"original": "seed"}  # the word of all checkpoints, so that those of earlier versions resume
QUANTISATION, BITS, SYMMETRIC = "quantisation", 8, "activation_symmetric"
FUSE = "decode_head.linear_fuse.weight"


def metadata(cfg: Config, classes: ClassList) -> dict:
    """What travels with the weights in every checkpoint, and has to be the same when a run is resumed."""
    return {
        "model": MODEL,
        "backbone": cfg.backbone,
        "decoder_dim": decoder_width(cfg.backbone, cfg.decoder_dim),
        "classes": class_table(classes),
        "recipe": STORED_RECIPES.get(cfg.recipe, cfg.recipe),
        "seed": cfg.seed,
        **({QUANTISATION: quantisation_of(cfg)} if cfg.quant else {}),
    }


def quantisation_of(cfg: Config) -> dict:
    """What decides the meaning of a quantised checkpoint's numbers."""
    return {"bits": BITS, "range_decay": cfg.range_decay, **({SYMMETRIC: True} if cfg.activation_symmetric else {})}


def class_table(classes: ClassList) -> dict:
    """A class list as JSON knows it, without the file it came from."""
    table = {key: value for key, value in dataclasses.asdict(classes).items() if key != "source"}
    return {key: [list(v) if isinstance(v, tuple) else v for v in value] if isinstance(value, tuple) else value
            for key, value in table.items()}  # fmt: skip


def classes_of(checkpoint: Checkpoint) -> ClassList | None:
    """The classes a checkpoint was trained on, None where it does not say."""
    return classes_in(checkpoint.meta, checkpoint.path)


def classes_in(meta: dict, source: Path) -> ClassList | None:
    """The classes in what a checkpoint or an exported file says about itself."""
    table = meta.get("classes")
    if table is None:
        return None
    lists = {key: tuple(table[key]) for key in ("names", "weights", "ids")}
    palette = tuple(tuple(colour) for colour in table["palette"])
    return ClassList(palette=palette, ignore=table["ignore"], source=str(source), **lists)


def read(path: str) -> Checkpoint:
    """Read a checkpoint; names of the original MindSpore network are translated. Raises ZooError for other models."""
    checkpoint = files.read(path)
    if not checkpoint.meta:
        arrays, _ = names.translate({names.from_model_zoo(key): array for key, array in checkpoint.arrays.items()})
        checkpoint = dataclasses.replace(checkpoint, arrays=arrays)
    model = checkpoint.meta.get("model", MODEL)
    if model != MODEL or names.FIRST not in checkpoint.arrays:
        what = f"a checkpoint of {model}" if model != MODEL else f"without '{names.FIRST}'"
        raise ZooError(f"{path} is {what}, no {MODEL} checkpoint; tools/convert_model.py makes one from PyTorch's")
    return checkpoint


def require_backbone(checkpoint: Checkpoint, cfg: Config) -> None:
    backbone = names.variant_of(checkpoint.arrays)
    if backbone != cfg.backbone:
        raise ZooError(
            f"{checkpoint.path} holds a {backbone or 'cut encoder'} and backbone is {cfg.backbone}; "
            f"use the configuration of {backbone or 'its encoder'} or another checkpoint"
        )


def has_head(checkpoint: Checkpoint) -> bool:
    return all(name in checkpoint.arrays for name in names.head_names())


def load(net: SegFormer, checkpoint: Checkpoint, cfg: Config) -> str:
    """Start `net` from a checkpoint; its head starts anew unless that of the checkpoint has the same shape."""
    require_backbone(checkpoint, cfg)
    head = net.decode_head
    shapes = (head.linear_fuse.weight.shape, head.linear_pred.weight.shape)
    fits = has_head(checkpoint) and shapes == (checkpoint.arrays[FUSE].shape, checkpoint.arrays[names.PREDICTION].shape)
    return files.load(net, files.weights(checkpoint), str(checkpoint.path), skip="" if fits else names.HEAD_PREFIX)


def network_of(checkpoint: Checkpoint, cfg: Config, library: Path | None = None, **options: Any) -> SegFormer:
    """The network that a checkpoint holds, quantised where that is, for evaluation, inference or export.

    `options` go to network.build; `library` holds the kernels of the quantisers, for what is not exported.
    """
    require_backbone(checkpoint, cfg)
    if not has_head(checkpoint):
        raise ZooError(f"{checkpoint.path} holds an encoder without a decode head; train from it first")
    classes, width = len(checkpoint.arrays[names.PREDICTION]), len(checkpoint.arrays[FUSE])
    if classes != cfg.class_num:
        raise UsageError(f"class_num is {cfg.class_num} and {checkpoint.path} has {classes} classes; give {classes}")
    if cfg.decoder_dim not in (0, width):
        raise UsageError(f"decoder_dim is {cfg.decoder_dim} and {checkpoint.path} has {width}; give {width} or 0")
    net = build(cfg.backbone, classes, width, cfg.seed, **options)
    if QUANTISATION in checkpoint.meta:
        made = checkpoint.meta[QUANTISATION]
        quantise(net, made["range_decay"], library, made.get(SYMMETRIC, False))
    files.load(net, files.weights(checkpoint), str(checkpoint.path))
    return net


def load_ranges(net: SegFormer, checkpoint: Checkpoint | None, cfg: Config) -> bool:
    """Take the ranges of a quantised network from the checkpoint it starts from; whether that has them."""
    if checkpoint is None or checkpoint.meta.get(QUANTISATION) != quantisation_of(cfg) or cfg.calibrate_only:
        return False
    ranges = [quantiser.range for quantiser in activation_quantisers(net)]
    files.assign(ranges, files.weights(checkpoint), str(checkpoint.path))
    return True
