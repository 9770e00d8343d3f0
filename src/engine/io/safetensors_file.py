"""Read the weights in a .safetensors file, with the library of that name, which is optional. No MindSpore here."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from src.engine.errors import ZooError, first_line

# Names of element types in the file; bfloat16 has no numpy type and is widened.
TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U8": "u1", "BOOL": "bool",
}  # fmt: skip


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """The arrays of the file, in its order; they own their memory.

    Raises ZooError where the library is not installed or the file is damaged.
    """
    try:
        import safetensors
    except ModuleNotFoundError as error:
        raise ZooError(
            f"{path} needs the library safetensors, which is not installed; run: pip install safetensors"
        ) from error
    try:
        entries = safetensors.deserialize(path.read_bytes())
    except OSError as error:
        raise ZooError(f"cannot read {path}: {error.strerror}; check the path and its permissions") from error
    except safetensors.SafetensorError as error:
        raise ZooError(
            f"{path} is damaged or no safetensors file ({first_line(error)}); download or save it again"
        ) from error
    return {name: array_of(name, entry, path) for name, entry in entries}


def array_of(name: str, entry: dict, path: Path) -> np.ndarray:
    """One tensor as the library describes it: its type, shape and bytes."""
    kind = entry["dtype"]
    if kind not in TYPES:
        raise ZooError(f"{path} has '{name}' as {kind}, which is not read; save it as float32")
    array = np.frombuffer(entry["data"], TYPES[kind]).reshape(entry["shape"])
    if kind == "BF16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.copy()
