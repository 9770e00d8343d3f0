"""YAML files of a configuration: reading them with what they include, and writing what is in force."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import yaml

from src.engine.config.options import Value, options_of
from src.engine.config.paths import expanded
from src.engine.config.values import shown
from src.engine.errors import UsageError

BASE_KEY = "__BASE__"
DOCUMENTS = 3  # of an original file: values, help texts, choices; only the values are read


def read_yaml(path: Path, ancestors: tuple[Path, ...] = ()) -> dict[str, Value]:
    """Read a YAML mapping and the files named under `__BASE__` (later files win, the file itself wins over all)."""
    if path.resolve() in ancestors:
        raise UsageError(f"{path} includes itself through {BASE_KEY}; remove one of the references")
    content = first_document(path)
    bases = content.pop(BASE_KEY, None) or []
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list):
        raise UsageError(f"{BASE_KEY} in {path} is {shown(bases)}; it has to be a file name or a list of them")
    values: dict[str, Value] = {}
    for base in bases:
        values.update(read_yaml(path.parent / expanded(str(base)), (*ancestors, path.resolve())))
    values.update({key: Value(raw, str(path)) for key, raw in content.items()})
    return values


def first_document(path: Path) -> dict[str, Any]:
    """The values of a file: its only document, or the first before those of help texts and choices."""
    try:
        loaded = yaml.safe_load_all(path.read_text(encoding="utf-8"))
        documents = list(itertools.islice(loaded, DOCUMENTS + 1))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read config_path {path}: {error}; give an existing YAML file") from error
    except Exception as error:  # of PyYAML, whose constructors raise more than YAMLError
        raise UsageError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if len(documents) > DOCUMENTS:
        raise UsageError(
            f"{path} holds more than {DOCUMENTS} documents; one is needed, with the values, and two may follow it "
            "after --- lines, with help texts and choices: remove the others"
        )
    for number, document in enumerate(documents, start=1):
        kind = type(document).__name__
        if number == 1 and not is_mapping(document):
            raise UsageError(f"{path} has to hold 'key: value' lines, not {kind}")
        if not isinstance(document, (dict, type(None))):
            raise UsageError(
                f"document {number} of {path}, after ---, is {kind}; documents after the first have to hold "
                "'key: value' lines, with help texts and choices: remove it"
            )
    return (documents[0] if documents else None) or {}


def is_mapping(document: Any) -> bool:
    """Whether a document is empty or has names as keys."""
    return document is None or (isinstance(document, dict) and all(isinstance(key, str) for key in document))


def to_yaml(config: Any) -> str:
    """The resolved configuration as YAML text that `read_yaml` and `build` turn back into the same values.

    Keys that have no effect in this model are left out.
    """
    used = [key for key, rule in options_of(type(config)).items() if not rule.unused]
    values = {key: getattr(config, key) for key in used}
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
