"""How a key of a configuration is declared: `option(...)`, `unused(...)`, `changed(...)`, and the groups of keys."""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

REQUIRED = object()  # default of a key that a YAML file has to give
# Groups of keys, in the order of --help, and the commands that read them (none named: all). The class that first
# declares a key gives the group by its name; a class that is not named here is a group of its own, after training.
GROUPS: dict[str, tuple[str, ...]] = {
    "Data": (),
    "Augmentation": ("train",),
    "Network": (),
    "Training": ("train",),
    "Distillation": ("train",),
    "Checkpoints": ("train",),
    "Evaluation": (),
    "Inference": ("infer",),
    "Export": ("export",),
    "Device": (),
    "Cloud": (),
    "Unused": (),
}
OWN_GROUP = "Network"  # of keys that a model's Config declares outside of any group


@dataclass(frozen=True)
class Option:
    """What a key means and which values it takes; `above` and `below` are exclusive, `low` and `high` inclusive bounds.

    Of a list, `lengths` are the allowed numbers of elements (empty: any), and the bounds hold for each element.
    `renamed` maps old spellings of a value to the present one. `read_by` are the commands that read the key (empty:
    those of its group). `is_input` marks a path that is read: a default one that is not in the working folder is looked
    for beside the scripts. `unused` is why a key has no effect in this model.
    """

    help: str
    choices: tuple = ()
    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    aliases: tuple[str, ...] = ()
    lengths: tuple[int, ...] = ()
    renamed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    read_by: tuple[str, ...] = ()
    is_input: bool = False
    unused: str = ""


@dataclass(frozen=True)
class Value:
    """A raw value and where it was written ("--lr_max" or "file.yaml"), for error messages."""

    raw: Any
    source: str


def option(help: str, default: Any = REQUIRED, **rules: Any) -> Any:
    """Declare one key of a configuration dataclass; `rules` are the fields of `Option`."""
    return dataclasses.field(default=default, metadata={"option": Option(help, **rules)})


def unused(default: Any, why: str) -> Any:
    """Declare a key of the original files that is accepted and has no effect; `why` ends "KEY has no effect: "."""
    return option(f"no effect: {why}", default, unused=why)


def changed(owner: type, key: str, default: Any, **rules: Any) -> Any:
    """The key that `owner` declares, with another default and, in `rules`, other fields of its `Option`."""
    return dataclasses.field(default=default, metadata={"option": dataclasses.replace(options_of(owner)[key], **rules)})


@functools.cache
def group_of(config_class: type, key: str) -> str:
    """The name of the class that first declares a key, or OWN_GROUP for keys that Config declares itself."""
    owners = [owner for owner in config_class.__mro__ if key in vars(owner).get("__annotations__", {})]
    name = owners[-1].__name__
    return OWN_GROUP if name == "Config" else name


@functools.cache
def fields_of(config_class: type) -> tuple[dataclasses.Field, ...]:
    """The keys of a configuration in the order of their groups."""
    order = {name: float(place) for place, name in enumerate(GROUPS)}
    after_training = order["Training"] + 0.5
    fields = dataclasses.fields(config_class)
    return tuple(sorted(fields, key=lambda field: order.get(group_of(config_class, field.name), after_training)))


def options_of(config_class: type) -> dict[str, Option]:
    return {field.name: field.metadata["option"] for field in fields_of(config_class)}


def types_of(config_class: type) -> dict[str, type]:
    hints = typing.get_type_hints(config_class)
    return {field.name: hints[field.name] for field in fields_of(config_class)}


def readers_of(config_class: type, key: str, rule: Option) -> tuple[str, ...]:
    """The commands that read a key; empty means all."""
    return rule.read_by or GROUPS.get(group_of(config_class, key), ())
