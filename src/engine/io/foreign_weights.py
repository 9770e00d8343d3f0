"""Weights that other libraries saved: a .pth or .safetensors file, or a folder of Hugging Face's. No MindSpore here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from src.engine.config import shown
from src.engine.errors import ZooError
from src.engine.io import safetensors_file, torch_file

CONFIG, INDEX_END = "config.json", ".index.json"
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")  # of a folder; large ones are shards that an index lists
UNNAMED = "LABEL_"  # what Hugging Face calls classes that nobody has named


class Foreign(NamedTuple):
    """Arrays by their names, and the names of the classes, () where nothing says them."""

    arrays: dict[str, np.ndarray]
    class_names: tuple[str, ...] = ()


def read(path: Path) -> Foreign:
    """Read whatever is at `path`. Raises ZooError where that cannot be used."""
    if path.is_dir():
        names = class_names(read_json(path / CONFIG, path), path / CONFIG)
        return Foreign(arrays_of_folder(path), names)
    return Foreign(arrays_of(path))


def arrays_of(file: Path) -> dict[str, np.ndarray]:
    if file.suffix == ".safetensors" and file.is_file():
        return safetensors_file.read_state_dict(file)
    return torch_file.read_state_dict(file)


def arrays_of_folder(folder: Path) -> dict[str, np.ndarray]:
    """The arrays of the first of WEIGHT_FILES that is there, whole or in shards."""
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return arrays_of(folder / name)
        index = folder / (name + INDEX_END)
        if index.is_file():
            shards = sorted(set(shards_of(read_json(index, folder), index)))
            return {key: array for shard in shards for key, array in arrays_of(folder / shard).items()}
    raise ZooError(f"{folder} holds neither {' nor '.join(WEIGHT_FILES)}; give a folder that save_pretrained wrote")


def shards_of(index: Any, file: Path) -> list[str]:
    """The files that an index names; all of them have to lie beside it."""
    table = index.get("weight_map") if isinstance(index, dict) else None
    names = list(table.values()) if isinstance(table, dict) else []
    if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise ZooError(f"{file} lists no weight files beside it; download or save the folder again")
    return names


def read_json(file: Path, folder: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ZooError(f"{folder} holds no {file.name}; give a folder that save_pretrained wrote, or a file") from error
    except (OSError, ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise ZooError(f"cannot read {file} as JSON; download or save the folder again") from error


def class_names(config: Any, file: Path) -> tuple[str, ...]:
    """The names of `id2label`, each once: a second one of a name has its number behind it."""
    table = config.get("id2label") if isinstance(config, dict) else None
    if table is None:
        return ()
    wanted = [str(index) for index in range(len(table))] if isinstance(table, dict) else []
    if not wanted or sorted(table) != sorted(wanted) or not all(isinstance(name, str) for name in table.values()):
        raise ZooError(f"id2label in {file} is {shown(table)}; it has to name the classes 0, 1, ... and no others")
    names: list[str] = []
    for index in wanted:
        name = table[index].strip() or index
        names.append(name if name not in names else f"{name} {index}")
    return () if all(name == f"{UNNAMED}{index}" for index, name in enumerate(names)) else tuple(names)
