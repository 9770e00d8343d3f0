"""Reading float and quantised checkpoints, by name and with every shape checked, and saying what was found."""

from __future__ import annotations

from src.classification import checkpoints
from src.engine.errors import ZooError
from src.engine.io import checkpoint as files
from src.engine.io.checkpoint import Checkpoint
from src.mobilenetv2.classifier import MOBILENETV2
from src.mobilenetv2.network import MobileNetV2
from src.mobilenetv2_quant.classifier import GRID_KEYS, MOBILENETV2_QUANT, grids
from src.mobilenetv2_quant.config import Config
from src.mobilenetv2_quant.network import build

MODEL = MOBILENETV2_QUANT.name


def read_any(path: str) -> Checkpoint:
    """A float or a quantised checkpoint."""
    return checkpoints.read(MOBILENETV2, path, (MODEL,))


def read(path: str) -> Checkpoint:
    """A quantised checkpoint."""
    if files.read(path).meta.get("model") != MODEL:
        raise ZooError(
            f"{path} is no {MODEL} checkpoint; train.py makes one of a float one, --calibrate_only 8 in seconds"
        )
    return checkpoints.read(MOBILENETV2_QUANT, path)


def load(net: MobileNetV2, checkpoint: Checkpoint, class_to_index: dict[str, int], cfg: Config) -> str:
    """Start `net` from a float or a quantised checkpoint; returns sentences for the log.

    Every array of the float network has to be there, with its shape. Quantisers are new where the checkpoint is float.
    """
    checkpoints.require_network(MOBILENETV2, checkpoint, cfg, () if cfg.calibrate_only else MOBILENETV2.may_change)
    cfg.require_float_start(checkpoint.path, checkpoint.meta.get("model") == MODEL)
    if not cfg.filter_head:
        checkpoints.require_classes(MOBILENETV2, checkpoint, class_to_index)
    arrays = files.weights(checkpoint)
    skip = "head." if cfg.filter_head else ""
    parameters = list(net.get_parameters())
    quantiser = {p.name for p in parameters} - float_names(net)
    new = quantiser - arrays.keys()
    if checkpoint.meta.get("model") == MODEL and new:
        made = checkpoint.meta["quantisation"]
        raise ZooError(f"{checkpoint.path} lacks '{sorted(new)[0]}'; it was made with other settings: {made}")
    wanted = [p for p in parameters if p.name not in new and not (skip and p.name.startswith(skip))]
    files.assign(wanted, arrays, str(checkpoint.path))
    unused = sorted(
        name for name in checkpoint.arrays.keys() - {p.name for p in wanted} if not name.startswith(files.EMA_PREFIX)
    )
    kept = len(parameters) - len(wanted) - len(new)
    return (
        f"{checkpoint.path}: {len(wanted)} arrays matched by name and shape, 0 missing, "
        f"{len(new)} of the quantisers new"
        + (f", {kept} of the head start anew" if kept else "")
        + (f"; not used: {len(unused)} ({', '.join(unused[:3])} ...)" if unused else "")
    )


def has_ranges(checkpoint: Checkpoint | None, cfg: Config) -> bool:
    """Whether a training goes on with the quantisers' numbers of the checkpoint that it starts from."""
    if checkpoint is None or checkpoint.meta.get("model") != MODEL or cfg.calibrate_only or cfg.filter_head:
        return False
    return checkpoint.meta["quantisation"] == grids(cfg)


def float_names(net: MobileNetV2) -> set[str]:
    """Parameters of the float network; a quantiser's end in its own names."""
    endings = (".range", ".scale", ".zero_point")
    return {p.name for p in net.get_parameters() if not p.name.endswith(endings)}


def network_of(
    checkpoint: Checkpoint, cfg: Config, kernels: str = "off", activation: str = "None", tell: bool = True
) -> MobileNetV2:
    """The network that a quantised checkpoint holds, for evaluation or export; `tell` prints what was loaded."""
    checkpoints.require_network(MOBILENETV2, checkpoint, cfg)
    made = checkpoint.meta["quantisation"]
    if made != grids(cfg):
        other = next(key for key in GRID_KEYS if made.get(key) != getattr(cfg, key))
        before = made.get(other)
        raise ZooError(f"{checkpoint.path} was made with {other} {before}; give --{other} {before or repr('')}")
    net = build(checkpoints.class_count(MOBILENETV2_QUANT, checkpoint), cfg, kernels, activation)
    loaded = files.load(net, files.weights(checkpoint), str(checkpoint.path))
    if tell:
        print(loaded)
        checkpoints.note_size(checkpoint, cfg)
    return net
