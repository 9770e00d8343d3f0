"""Configuration: frozen dataclass < `__BASE__` YAML < YAML < command line, checked once and never changed.

A model declares its keys with `option(...)`; this file reads YAML files, generates the flags, converts and checks the
values and builds the dataclass. Every error is a UsageError that says where the value came from. No MindSpore here.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import math
import reprlib
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from src.engine.errors import UsageError

REQUIRED = object()  # default of a key that a YAML file has to give
BASE_KEY = "__BASE__"
SCALARS = (str, int, float)  # bool is an int
TRUE_WORDS, FALSE_WORDS = ("true", "1", "yes", "on"), ("false", "0", "no", "off")


@dataclass(frozen=True)
class Option:
    """What a key means and which values it takes; `above` is an exclusive bound, `low` and `high` are inclusive.

    Of a list, `lengths` are the allowed numbers of elements (empty: any), and the bounds hold for each element.
    """

    help: str
    choices: tuple = ()
    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    aliases: tuple[str, ...] = ()
    lengths: tuple[int, ...] = ()


@dataclass(frozen=True)
class Value:
    """A raw value and where it was written ("--lr_max" or "file.yaml"), for error messages."""

    raw: Any
    source: str


def option(help: str, default: Any = REQUIRED, **rules) -> Any:
    """Declare one key of a configuration dataclass; `rules` are the fields of `Option`."""
    return dataclasses.field(default=default, metadata={"option": Option(help, **rules)})


def options_of(config_class: type) -> dict[str, Option]:
    return {field.name: field.metadata["option"] for field in dataclasses.fields(config_class)}


def types_of(config_class: type) -> dict[str, type]:
    hints = typing.get_type_hints(config_class)
    return {field.name: hints[field.name] for field in dataclasses.fields(config_class)}


def read_yaml(path: Path, ancestors: tuple[Path, ...] = ()) -> dict[str, Value]:
    """Read a YAML mapping and the files named under `__BASE__` (later files win, the file itself wins over all)."""
    if path.resolve() in ancestors:
        raise UsageError(f"{path} includes itself through {BASE_KEY}; remove one of the references")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read config_path {path}: {error}; give an existing YAML file") from error
    except Exception as error:  # of PyYAML, whose constructors raise more than YAMLError
        raise UsageError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    content = {} if content is None else content
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UsageError(f"{path} has to hold 'key: value' lines, not {type(content).__name__}")
    bases = content.pop(BASE_KEY, None) or []
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list):
        raise UsageError(f"{BASE_KEY} in {path} is {shown(bases)}; it has to be a file name or a list of them")
    values: dict[str, Value] = {}
    for base in bases:
        values.update(read_yaml(path.parent / Path(str(base)).expanduser(), (*ancestors, path.resolve())))
    values.update({key: Value(raw, str(path)) for key, raw in content.items()})
    return values


def shown(raw: Any) -> str:
    """A raw value in an error message; cut, because aliases can make a value of a small YAML file endless."""
    short = reprlib.Repr()
    short.maxlevel, short.maxlist, short.maxtuple = 2, 8, 8
    short.maxstring, short.maxother, short.maxlong = 200, 200, 40
    return short.repr(raw)


def text_of(raw: str | float | bool) -> str:
    """A scalar as text; Python writes no whole number of thousands of digits."""
    try:
        return str(raw)
    except ValueError:
        return shown(raw)


def convert(raw: Any, wanted: type, key: str, source: str) -> Any:
    """Turn a YAML value or a flag's text into `wanted`: bool, int, float, str, or a tuple of numbers of any length."""
    if typing.get_origin(wanted) is tuple:
        return convert_list(raw, typing.get_args(wanted)[0], key, source)
    if wanted is str:
        if raw is None:
            return ""
        if not isinstance(raw, SCALARS):
            raise UsageError(f"{key} is {shown(raw)} (from {source}); it has to be text")
        return text_of(raw)
    text = text_of(raw).strip() if isinstance(raw, SCALARS) else ""
    if wanted is bool:
        if text.lower() in TRUE_WORDS:
            return True
        if text.lower() in FALSE_WORDS:
            return False
        raise UsageError(f"{key} is {shown(raw)} (from {source}); it has to be True or False")
    try:
        if isinstance(raw, bool) or "_" in text:
            raise ValueError
        number = float(text)  # also accepts 4e-5, which YAML 1.1 reads as text
        if not math.isfinite(number) or (wanted is int and number != int(number)):
            raise ValueError
        return int(text) if wanted is int and text.lstrip("+-").isdigit() else wanted(number)
    except ValueError:
        kind = "a whole number" if wanted is int else "a finite number"
        raise UsageError(f"{key} is {shown(raw)} (from {source}); it has to be {kind}") from None


def convert_list(raw: Any, item: type, key: str, source: str) -> tuple:
    """A YAML list, or the text "512,1024" or "[512, 1024]", as a tuple of `item`; one number is a list of one."""
    if isinstance(raw, str):
        text = raw.strip()
        inner = text[1:-1] if text.startswith("[") and text.endswith("]") else text
        raw = inner.split(",") if inner.strip() else []
    items = raw if isinstance(raw, (list, tuple)) else [raw]
    return tuple(convert(value, item, key, source) for value in items)


def check(value: Any, rule: Option, key: str, source: str) -> None:
    """Raise UsageError where `value`, or an element of a list, breaks the rule of its key."""
    if isinstance(value, tuple):
        if rule.lengths and len(value) not in rule.lengths:
            allowed = " or ".join(str(length) for length in rule.lengths)
            raise UsageError(f"{key} is {list(value)} (from {source}); it has to have {allowed} numbers")
        for element in value:
            check(element, rule, key, source)
        return
    if rule.choices and value not in rule.choices:
        allowed = ", ".join(repr(choice) for choice in rule.choices)
        raise UsageError(f"{key} is {shown(value)} (from {source}); it has to be one of {allowed}")
    bounds = (
        (rule.low, "at least", lambda bound: value >= bound),
        (rule.high, "at most", lambda bound: value <= bound),
        (rule.above, "above", lambda bound: value > bound),
        (rule.below, "below", lambda bound: value < bound),
    )
    for bound, words, holds in bounds:
        if bound is not None and not holds(bound):
            raise UsageError(f"{key} is {value!r} (from {source}); it has to be {words} {bound}")


def did_you_mean(word: str, known: typing.Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def canonical(config_class: type, values: dict[str, Value]) -> dict[str, Value]:
    """The same values with aliases replaced by the names of their keys; of two for one key the later one stays."""
    aliases = {alias: name for name, rule in options_of(config_class).items() for alias in rule.aliases}
    return {aliases.get(key, key): value for key, value in values.items()}


def build(config_class: type, values: dict[str, Value]) -> Any:
    """Check every value and build the frozen configuration. Aliases are resolved; unknown keys are errors."""
    rules, types = options_of(config_class), types_of(config_class)
    arguments = {}
    for key, value in canonical(config_class, values).items():
        if key not in rules:
            raise UsageError(f"unknown key {shown(key)} in {value.source}{did_you_mean(key, rules)}")
        raw = value.raw
        if isinstance(raw, bool) and "on" in rules[key].choices:
            raw = "on" if raw else "off"  # YAML 1.1 reads on and off as truth values
        arguments[key] = convert(raw, types[key], key, value.source)
        check(arguments[key], rules[key], key, value.source)
    for field in dataclasses.fields(config_class):
        if field.default is REQUIRED and field.name not in arguments:
            raise UsageError(f"the configuration has no '{field.name}'; add it to the YAML file or give --{field.name}")
    return config_class(**arguments)


class Parser(argparse.ArgumentParser):
    """argparse that raises UsageError, so that a wrong flag is one sentence and exit status 2."""

    def error(self, message: str) -> typing.NoReturn:
        raise UsageError(f"{message[0].lower()}{message[1:]}; --help lists the flags of this command")


def type_name(wanted: type) -> str:
    """What --help calls a type."""
    if typing.get_origin(wanted) is tuple:
        return f"{typing.get_args(wanted)[0].__name__},..."
    return wanted.__name__


def flag_parser(config_class: type, file_values: dict[str, Value], prog: str, description: str) -> Parser:
    """One flag per key, absent unless given; the help shows type, value in force, choices and meaning."""
    parser = Parser(
        prog=prog,
        description=description,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config_path", metavar="FILE", help="YAML file with the values of the keys below")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    types = types_of(config_class)
    for field in dataclasses.fields(config_class):
        rule: Option = field.metadata["option"]
        in_force = file_values[field.name].raw if field.name in file_values else field.default
        default = "required" if in_force is REQUIRED else f"default {shown(in_force)}"
        choices = f", one of {', '.join(str(choice) or repr('') for choice in rule.choices)}" if rule.choices else ""
        text = f"[{type_name(types[field.name])}, {default}{choices}] {rule.help}".replace("%", "%%")
        flags = [f"--{name}" for name in (field.name, *rule.aliases)]
        parser.add_argument(*flags, dest=field.name, metavar="VALUE", help=text)
    return parser


def parse_flags(parser: Parser, argv: list[str]) -> tuple[dict[str, Value], list[str]]:
    """The flags that were given, as values that know their flag, and the arguments that nothing is known of."""
    given, unknown = parser.parse_known_args(argv)
    flags = {name: raw for name, raw in vars(given).items() if name not in ("config_path", "debug")}
    return {name: Value(raw, f"--{name}") for name, raw in flags.items()}, unknown


def refuse_unknown(parser: Parser, unknown: list[str]) -> None:
    """Raise UsageError with a suggestion for the first of some unknown arguments."""
    if unknown:
        known = [flag for action in parser._actions for flag in action.option_strings]
        word = unknown[0].split("=")[0]
        what = "unknown flag" if word.startswith("-") else "unexpected argument"
        raise UsageError(f"{what} {shown(word)}{did_you_mean(word, known)}")


def to_yaml(config: Any) -> str:
    """The resolved configuration as YAML text that `read_yaml` and `build` turn back into an equal object."""
    values = {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(config).items()}
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def require_folder(key: str, path: str) -> None:
    """Raise UsageError where the value of `key` is not an existing folder."""
    if not path:
        raise UsageError(f"{key} is not set; give --{key} FOLDER")
    if not Path(path).expanduser().is_dir():
        raise UsageError(f"{key} {path} is not a folder; give an existing one with --{key} FOLDER")


def require_file(key: str, path: str, otherwise: str = "") -> None:
    """Raise UsageError where the value of `key` is not an existing file; `otherwise` names another remedy."""
    if not path:
        raise UsageError(f"{key} is not set; give --{key} FILE{otherwise}")
    if not Path(path).expanduser().is_file():
        raise UsageError(f"{key} {path} is not a file; give an existing one with --{key} FILE{otherwise}")
