"""Paths in a configuration: inputs that have to exist, and defaults that lie beside the scripts."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from src.engine.config.options import Value, fields_of
from src.engine.config.values import unquoted
from src.engine.errors import UsageError

ARCHIVES = (".tar", ".zip")  # which data/tree.py reads as folders, by their names


def require_folder(key: str, path: str) -> None:
    """Raise UsageError where the value of `key` is not an existing folder."""
    if not path:
        raise UsageError(f"{key} is not set; give --{key} FOLDER")
    if not expanded(path).is_dir():
        raise UsageError(f"{key} {path} is not a folder; give an existing one with --{key} FOLDER")


def require_data(key: str, path: str) -> None:
    """Raise UsageError where the value of `key` is neither an existing folder nor an archive that is read as one."""
    if not path:
        require_folder(key, path)
    if not (expanded(path).is_dir() or is_archive(path)):
        raise UsageError(f"{key} {path} is not a folder, .tar or .zip file; give an existing one with --{key} FOLDER")


def is_archive(path: str) -> bool:
    """Whether `path` is a file that is read as a folder, by its name."""
    return expanded(path).is_file() and path.lower().endswith(ARCHIVES)


def require_file(key: str, path: str, otherwise: str = "") -> None:
    """Raise UsageError where the value of `key` is not an existing file; `otherwise` names another remedy."""
    if not path:
        raise UsageError(f"{key} is not set; give --{key} FILE{otherwise}")
    if not expanded(path).is_file():
        raise UsageError(f"{key} {path} is not a file; give an existing one with --{key} FILE{otherwise}")


def require_images(key: str, path: str) -> None:
    """Raise UsageError where the value of `key` is neither a file nor a folder."""
    if not path or not exists(expanded(path)):
        raise UsageError(f"{key} {path} does not exist; give --{key} IMAGE or FOLDER")


def look_beside(config_class: type, values: dict[str, Value], root: Path) -> dict[str, str]:
    """The relative input paths of files and defaults that are not in the working folder but in `root`, as paths there.

    What is given on the command line is meant as it is.
    """
    found = {}
    for field in fields_of(config_class):
        value = values.get(field.name, Value(field.default, "the default"))
        raw = unquoted(value.raw)
        if not field.metadata["option"].is_input or not isinstance(raw, str) or value.source.startswith("--"):
            continue
        path = expanded(raw)
        if raw and not path.is_absolute() and not exists(path) and exists(root / path):
            found[field.name] = str(root / path)
    return found


def expanded(text: str) -> Path:
    """A path with the home folder for ~; pathlib raises an error where a user of a name like ~x does not exist."""
    return Path(os.path.expanduser(text))  # noqa: PTH111


def first_file(candidates: Iterable[Path]) -> Path | None:
    """The first of some paths that is a file."""
    return next((path for path in candidates if exists(path) and path.is_file()), None)


def exists(path: Path) -> bool:
    """Whether there is something at `path`; False for texts that no path can be."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
