"""Checkpoints: written whole or not at all, with a checksum, and loaded by name with every shape checked.

A file holds named arrays, the first of them the bytes of a JSON text under META_KEY. It is an ordinary MindSpore
checkpoint, so `mindspore.load_checkpoint` reads it too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import nn

from src.engine.errors import ZooError, first_line
from src.engine.io.files import checkpoint_number, replace_file

META_KEY = "zoo_meta"
EMA_PREFIX = "ema."
CHECKSUM_MARK = b"crc_num"  # stands in front of the ten bytes of the checksum at the end of the file


@dataclass(frozen=True)
class Checkpoint:
    """Named arrays, and what is known about them ({} for files that this project did not write)."""

    path: Path
    arrays: dict[str, np.ndarray]
    meta: dict


def save(path: Path, arrays: dict[str, np.ndarray], meta: dict) -> None:
    """Write a checkpoint; its final name never holds half a file."""

    def write(temporary: Path) -> None:
        text = json.dumps({**meta, "entries": len(arrays)}).encode()
        # First in the file, so that no truncated file lacks the number of entries it should have.
        entries = {META_KEY: np.frombuffer(text, np.uint8), **arrays}
        data = [{"name": name, "data": ms.Tensor(array)} for name, array in entries.items()]
        try:
            ms.save_checkpoint(data, str(temporary), crc_check=True)
        except RuntimeError as error:  # all that MindSpore says about a file it cannot write
            raise OSError(first_line(error)) from error

    replace_file(path, write)


def read(path: str | Path) -> Checkpoint:
    """Read a checkpoint and verify its checksum. Raises ZooError where the file is damaged or is no checkpoint."""
    path = Path(path).expanduser()
    if path.suffix != ".ckpt":
        raise ZooError(
            f"{path} does not end in .ckpt; give a MindSpore checkpoint (tools/convert_model.py converts .pth)"
        )
    try:
        entries = ms.load_checkpoint(str(path), crc_check=True)
    except Exception as error:
        raise ZooError(f"{path} is damaged or no checkpoint; use another file, or copy it again") from error
    text = entries.pop(META_KEY, None)
    arrays = {name: value.asnumpy() for name, value in entries.items() if isinstance(value, ms.Parameter)}
    meta = json.loads(text.asnumpy().tobytes()) if text is not None else {}
    if meta and (meta["entries"] != len(arrays) or not _has_checksum(path)):
        raise ZooError(f"{path} holds {len(arrays)} of {meta['entries']} arrays; it is damaged, use another file")
    return Checkpoint(path, arrays, meta)


def _has_checksum(path: Path) -> bool:
    """MindSpore verifies a checksum that is there and only warns where it was cut off."""
    with path.open("rb") as handle:
        handle.seek(-len(CHECKSUM_MARK) - 10, 2)
        return handle.read(len(CHECKSUM_MARK)) == CHECKSUM_MARK


def weights(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    """The weights to evaluate: the moving average where the checkpoint holds one, else the plain ones."""
    averaged = {k[len(EMA_PREFIX) :]: v for k, v in checkpoint.arrays.items() if k.startswith(EMA_PREFIX)}
    return {**checkpoint.arrays, **averaged}


def arrays_of(parameters: Iterable[ms.Parameter]) -> dict[str, np.ndarray]:
    return {p.name: p.asnumpy() for p in parameters}


def assign(parameters: Iterable[ms.Parameter], arrays: dict[str, np.ndarray], source: str) -> None:
    """Set every parameter from the array of its name; ZooError names what is missing or has another shape."""
    parameters = list(parameters)
    missing = [p.name for p in parameters if p.name not in arrays]
    if missing:
        raise ZooError(
            f"{source} lacks {len(missing)} of {len(parameters)} arrays, '{missing[0]}' first; "
            "it belongs to another model or to other settings"
        )
    for parameter in parameters:
        array = arrays[parameter.name]
        if tuple(array.shape) != tuple(parameter.shape):
            raise ZooError(
                f"{source} has '{parameter.name}' as {tuple(array.shape)} and the network as {tuple(parameter.shape)}; "
                "it belongs to another size of the network or another number of classes"
            )
    for parameter in parameters:
        array = arrays[parameter.name]
        parameter.set_data(ms.Tensor(array, dtype=parameter.dtype))


def load(net: nn.Cell, arrays: dict[str, np.ndarray], source: str, skip: str = "") -> str:
    """Load all parameters of `net` but those whose name starts with `skip`; returns a sentence for the log."""
    wanted = [p for p in net.get_parameters() if not (skip and p.name.startswith(skip))]
    assign(wanted, arrays, source)
    kept = len(list(net.get_parameters())) - len(wanted)
    return f"loaded {len(wanted)} arrays from {source}" + (
        f", {kept} of the {skip.rstrip('.')} start anew" if kept else ""
    )


@dataclass(frozen=True)
class Names:
    """File names of one run: epochs as `epoch_format`, a save in the middle of an epoch always as prefix-EPOCH_STEP."""

    prefix: str
    epoch_format: str = "{prefix}-{epoch}_{step}.ckpt"

    def of(self, epoch: int, step: int, steps_per_epoch: int) -> str:
        """`epoch` counts from 1; `step` is the number of steps done in it."""
        pattern = self.epoch_format if step == steps_per_epoch else Names.epoch_format
        return pattern.format(prefix=self.prefix, epoch=epoch, step=step)

    def find(self, folder: Path) -> list[tuple[int, float, Path]]:
        """(epoch, step, path) of the checkpoints in `folder`, oldest first; a name without step is a whole epoch."""
        paths = folder.glob(f"{self.prefix}*.ckpt")
        found = [(checkpoint_number(path.name, self.prefix), path) for path in paths]
        return sorted((*number[1:], path) for number, path in found if number)

    def newest_good(self, folder: Path, say: Callable[[str], None]) -> Checkpoint | None:
        """The newest checkpoint of a run that is whole; a damaged one is named and passed over."""
        for _, _, path in reversed(self.find(folder)):
            try:
                return read(path)
            except ZooError as error:
                say(f"{error}; trying the checkpoint before it")
        return None

    def remove_old(self, folder: Path, keep: int, middles: set[Path]) -> list[str]:
        """Keep the newest `keep` epochs, or all if it is 0; returns the names of what was removed.

        A save in the middle of an epoch goes once there is a newer checkpoint.
        """
        found = [path for *_, path in self.find(folder)]
        whole = [path for path in found if path not in middles]
        old = [*(whole[:-keep] if keep else ()), *(path for path in found[:-1] if path in middles)]
        for path in old:
            path.unlink()
        return [path.name for path in old]
