"""The command line of a configuration: a flag per key, --help in groups, --help WORD, suggestions for typing errors."""

from __future__ import annotations

import argparse
import dataclasses
import typing
from typing import Any

from src.engine.config.options import GROUPS, REQUIRED, Option, Value, fields_of, group_of, types_of
from src.engine.config.values import did_you_mean, shown, unquoted
from src.engine.errors import UsageError

NOT_KEYS = ("config_path", "debug")  # flags of every command


class Parser(argparse.ArgumentParser):
    """argparse that raises UsageError, so that a wrong flag is one sentence and exit status 2.

    The description keeps its lines, and half a flag stands for none.
    """

    def __init__(self, **rules: Any):
        super().__init__(**{"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False, **rules})

    def error(self, message: str) -> typing.NoReturn:
        raise UsageError(f"{message[0].lower()}{message[1:]}; --help lists the flags of this command")


class Help(argparse.Action):
    """--help prints everything, --help WORD only the key of that name, or the keys whose lines hold the word."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, word: Any, option_string: Any = None) -> None:
        print(matching_help(parser, unquoted(word)) if word else parser.format_help(), end="")
        parser.exit()


def matching_help(parser: argparse.ArgumentParser, word: str) -> str:
    """The lines of --help about the key `word`, or about the keys whose name or meaning holds it."""
    formatter = parser._get_formatter()
    flags = {flag for action in parser._actions for flag in action.option_strings}
    is_key, found = f"--{word}" in flags, False
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if is_about(action, word, is_key)]
        found = found or bool(actions)
        formatter.start_section(group.title)
        formatter.add_arguments(actions)
        formatter.end_section()
    if not found:
        names = [flag[2:] for flag in flags]
        raise UsageError(f"no key of this command is about {shown(word)}{did_you_mean(word, names)}")
    return formatter.format_help()


def is_about(action: argparse.Action, word: str, is_key: bool) -> bool:
    if is_key:
        return f"--{word}" in action.option_strings
    return word.lower() in " ".join([*action.option_strings, action.help or ""]).lower()


def type_name(wanted: type) -> str:
    """What --help calls a type."""
    if typing.get_origin(wanted) is tuple:
        return f"{typing.get_args(wanted)[0].__name__},..."
    return wanted.__name__


def flag_parser(config_class: type, file_values: dict[str, Value], prog: str, description: str) -> Parser:
    """One flag per key, absent unless given; the help shows type, value in force, choices and meaning."""
    parser = Parser(
        prog=prog,
        usage="%(prog)s [--config_path FILE] [--KEY VALUE ...] [--help [WORD]]",
        description=description,
        argument_default=argparse.SUPPRESS,
        add_help=False,
    )
    general = parser.add_argument_group("every command")
    general.add_argument("--config_path", metavar="FILE", help="YAML file with the values of the keys below")
    general.add_argument(
        "-h", "--help", action=Help, nargs="?", metavar="WORD", help="show all keys, one, or those about a word"
    )
    general.add_argument("--debug", action="store_true", help="show the traceback of an error")
    groups: dict[str, Any] = {}
    types = types_of(config_class)
    for field in fields_of(config_class):
        title = title_of(config_class, field.name)
        group = groups[title] = groups.get(title) or parser.add_argument_group(title)
        add_flag(group, config_class, field, types[field.name], file_values.get(field.name))
    return parser


def title_of(config_class: type, key: str) -> str:
    """The title of a key's group, with the scripts that alone read it."""
    name = group_of(config_class, key)
    if name == "Unused":
        return "keys of the original files that have no effect"
    return name.lower() + scripts_of(GROUPS.get(name, ()))


def scripts_of(commands: tuple[str, ...]) -> str:
    return f" ({', '.join(f'{name}.py' for name in commands)})" if commands else ""


def add_flag(group: Any, config_class: type, field: dataclasses.Field, wanted: type, value: Value | None) -> None:
    """Add the flag of one key; `value` is what a YAML file says."""
    rule: Option = field.metadata["option"]
    in_force = field.default if value is None else value.raw
    default = "required" if in_force is REQUIRED else f"default {shown(in_force)}"
    choices = f", one of {', '.join(str(choice) or repr('') for choice in rule.choices)}" if rule.choices else ""
    text = f"[{type_name(wanted)}, {default}{choices}] {rule.help}{scripts_of(rule.read_by)}".replace("%", "%%")
    flags = [f"--{name}" for name in (field.name, *rule.aliases)]
    group.add_argument(*flags, dest=field.name, metavar="VALUE", help=text)


def parse_flags(parser: Parser, argv: list[str]) -> tuple[dict[str, Value], list[str]]:
    """The flags that were given, as values that know their flag, and the arguments that nothing is known of."""
    given, unknown = parser.parse_known_args(argv)
    flags = {name: raw for name, raw in vars(given).items() if name not in NOT_KEYS}
    return {name: Value(raw, f"--{name}") for name, raw in flags.items()}, unknown


def refuse_unknown(parser: Parser, unknown: list[str]) -> None:
    """Raise UsageError with a suggestion for the first of some unknown arguments."""
    if unknown:
        known = [flag for action in parser._actions for flag in action.option_strings]
        word = unknown[0].split("=")[0]
        what = "unknown flag" if word.startswith("-") else "unexpected argument"
        raise UsageError(f"{what} {shown(word)}{did_you_mean(word, known)}")
