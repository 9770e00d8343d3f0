"""Values of a configuration: converted to their types, checked against their keys' rules, built into one object."""

from __future__ import annotations

import difflib
import math
import reprlib
import typing
from typing import Any

from src.engine.config.options import REQUIRED, Option, Value, fields_of, options_of, types_of
from src.engine.errors import UsageError

SCALARS = (str, int, float)  # bool is an int
TRUE_WORDS, FALSE_WORDS = ("true", "1", "yes", "on"), ("false", "0", "no", "off")


def shown(raw: Any) -> str:
    """A raw value in an error message; cut, because aliases can make a value of a small YAML file endless."""
    short = reprlib.Repr()
    short.maxlevel, short.maxlist, short.maxtuple = 2, 8, 8
    short.maxstring, short.maxother, short.maxlong = 200, 200, 40
    return short.repr(raw)


def unquoted(raw: Any) -> Any:
    """A text without the matching quotes around it, which people copy from a document or a YAML file."""
    while isinstance(raw, str) and len(raw) > 1 and raw[0] == raw[-1] and raw[0] in "'\"":
        raw = raw[1:-1]
    return raw


def text_of(raw: str | float | bool) -> str:
    """A scalar as text; Python writes no whole number of thousands of digits."""
    try:
        return str(raw)
    except ValueError:
        return shown(raw)


def convert(raw: Any, wanted: type, key: str, source: str) -> Any:
    """Turn a YAML value or a flag's text into `wanted`: bool, int, float, str, or a tuple of numbers of any length.

    Quotes around the whole text do not count.
    """
    raw = unquoted(raw)
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
        if isinstance(arguments[key], str):
            arguments[key] = rules[key].renamed.get(arguments[key], arguments[key])
        check(arguments[key], rules[key], key, value.source)
    for field in fields_of(config_class):
        if field.default is REQUIRED and field.name not in arguments:
            raise UsageError(f"the configuration has no '{field.name}'; add it to the YAML file or give --{field.name}")
    return config_class(**arguments)
