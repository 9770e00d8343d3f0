"""Configuration: frozen dataclass < `__BASE__` YAML < YAML < command line, checked once and never changed.

A model declares its keys with `option(...)` in classes by topic (shared.py has those of all models). This package reads
YAML files, generates the flags, converts and checks the values, builds the dataclass and says what has no effect. Every
error is a UsageError that says where the value came from. No MindSpore here.
"""

from src.engine.config.flags import Parser, flag_parser, parse_flags, refuse_unknown
from src.engine.config.notes import notes
from src.engine.config.options import (
    Option,
    Value,
    changed,
    fields_of,
    option,
    options_of,
    types_of,
    unused,
)
from src.engine.config.paths import (
    expanded,
    first_file,
    is_archive,
    look_beside,
    require_data,
    require_file,
    require_folder,
    require_images,
)
from src.engine.config.values import build, canonical, check, convert, shown, unquoted
from src.engine.config.yaml_files import read_yaml, to_yaml

__all__ = [
    "Option",
    "Parser",
    "Value",
    "build",
    "canonical",
    "changed",
    "check",
    "convert",
    "expanded",
    "fields_of",
    "first_file",
    "flag_parser",
    "is_archive",
    "look_beside",
    "notes",
    "option",
    "options_of",
    "parse_flags",
    "read_yaml",
    "refuse_unknown",
    "require_file",
    "require_data",
    "require_folder",
    "require_images",
    "shown",
    "to_yaml",
    "types_of",
    "unquoted",
    "unused",
]
