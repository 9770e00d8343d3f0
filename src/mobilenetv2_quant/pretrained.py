"""Reading float and quantised checkpoints, by name and with every shape checked, and saying what was found."""

from __future__ import annotations

from src.engine.errors import ZooError
from src.engine.io import checkpoint
from src.engine.io.checkpoint import Checkpoint
from src.mobilenetv2 import pretrained
from src.mobilenetv2.network import MobileNetV2
from src.mobilenetv2_quant.config import Config
from src.mobilenetv2_quant.network import build

MODEL = "mobilenetv2_quant"
GRID_KEYS = (
    "quant_method", "weight_bits", "weight_symmetric", "weight_per_channel", "weight_narrow_range",
    "activation_bits", "activation_symmetric", "activation_narrow_range", "float_layers",
)  # fmt: skip


def grids(cfg: Config) -> dict:
    """What decides the meaning of a checkpoint's numbers."""
    return {key: getattr(cfg, key) for key in GRID_KEYS}


def about(cfg: Config, class_to_index: dict[str, int]) -> dict:
    """What travels with the weights in every checkpoint, and has to be the same when a run is resumed."""
    return {**pretrained.about(cfg, class_to_index), "model": MODEL, "quantisation": grids(cfg)}


def read_any(path: str) -> Checkpoint:
    """A float or a quantised checkpoint."""
    return pretrained.read(path, (pretrained.MODEL, MODEL))


def read(path: str) -> Checkpoint:
    """A quantised checkpoint."""
    stored = checkpoint.read(path)
    if stored.meta.get("model") != MODEL:
        raise ZooError(
            f"{path} is no {MODEL} checkpoint; train.py makes one of a float one, --calibrate_only 8 in seconds"
        )
    return pretrained.read(path, (MODEL,))


def load(net: MobileNetV2, stored: Checkpoint, class_to_index: dict[str, int], cfg: Config) -> str:
    """Start `net` from a float or a quantised checkpoint; returns sentences for the log.

    Every array of the float network has to be there, with its shape. Quantisers are new where the checkpoint is float.
    """
    pretrained.require_width(stored, cfg)
    if not cfg.filter_head:
        pretrained.require_classes(stored, class_to_index)
    arrays = checkpoint.weights(stored)
    skip = "head." if cfg.filter_head else ""
    parameters = list(net.get_parameters())
    quantiser = {p.name for p in parameters} - float_names(net)
    new = quantiser - arrays.keys()
    if stored.meta.get("model") == MODEL and new:
        raise ZooError(
            f"{stored.path} lacks '{sorted(new)[0]}'; it was made with other settings: {stored.meta['quantisation']}"
        )
    wanted = [p for p in parameters if p.name not in new and not (skip and p.name.startswith(skip))]
    checkpoint.assign(wanted, arrays, str(stored.path))
    unused = sorted(
        name for name in stored.arrays.keys() - {p.name for p in wanted} if not name.startswith(checkpoint.EMA_PREFIX)
    )
    kept = len(parameters) - len(wanted) - len(new)
    return (
        f"{stored.path}: {len(wanted)} arrays matched by name and shape, 0 missing, {len(new)} of the quantisers new"
        + (f", {kept} of the head start anew" if kept else "")
        + (f"; not used: {len(unused)} ({', '.join(unused[:3])} ...)" if unused else "")
    )


def has_ranges(stored: Checkpoint | None, cfg: Config) -> bool:
    """Whether a training goes on with the quantisers' numbers of the checkpoint that it starts from."""
    if stored is None or stored.meta.get("model") != MODEL or cfg.calibrate_only or cfg.filter_head:
        return False
    return stored.meta["quantisation"] == grids(cfg)


def float_names(net: MobileNetV2) -> set[str]:
    """Parameters of the float network; a quantiser's end in its own names."""
    endings = (".range", ".scale", ".zero_point")
    return {p.name for p in net.get_parameters() if not p.name.endswith(endings)}


def network_of(
    stored: Checkpoint, cfg: Config, kernels: str = "off", activation: str = "None", tell: bool = True
) -> MobileNetV2:
    """The network that a quantised checkpoint holds, for evaluation or export; `tell` prints what was loaded."""
    pretrained.require_width(stored, cfg)
    if stored.meta["quantisation"] != grids(cfg):
        other = next(key for key in GRID_KEYS if stored.meta["quantisation"].get(key) != getattr(cfg, key))
        before = stored.meta["quantisation"].get(other)
        raise ZooError(f"{stored.path} was made with {other} {before}; give --{other} {before or repr('')}")
    net = build(pretrained.class_count(stored), cfg, kernels, activation)
    loaded = checkpoint.load(net, checkpoint.weights(stored), str(stored.path))
    if tell:
        print(loaded)
        pretrained.note_size(stored, cfg)
    return net
