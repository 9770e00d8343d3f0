"""Write the parts of the documents that follow from the code: trees of modules, tables of keys.

python tools/documents.py [--check]
"""

from __future__ import annotations

import argparse
import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from src.engine.config.flags import title_of, type_name
from src.engine.config.options import REQUIRED, Option, fields_of, types_of
from src.engine.config.values import shown

ROOT = Path(__file__).resolve().parent.parent
TREE = re.compile(r"(<!-- tree: ([^\n]*) -->\n```text\n)(.*?)(```)", re.S)
KEYS = re.compile(r"(<!-- keys -->\n)(.*?)(<!-- end of keys -->)", re.S)
MODELS = {"MobileNetV2": "mobilenetv2", "quant": "mobilenetv2_quant", "SegFormer": "segformer"}
INDENT, COLUMN = 2, 34  # of the sentences
# Files that can say nothing of themselves.
FILES = {"LICENSE": "Apache-2.0", "NOTICE": "Whose work this is, and the terms of others' weights"}
FOLDERS = {  # that hold no file which says what they are
    ".ci": "What continuous integration runs",
    "ascend310_infer": "The C++ application for Ascend 310: core, AscendCL layer, tests of the core",
    "benchmarks": "How fast, against whom: python -m benchmarks.cpu",
    "configs": "Model cards, and a YAML file per model, platform and data set",
    "docs": "Documentation",
    "examples": "The quick starts, and the data they draw",
    "scripts": "Launchers of MobileNetV2; the other models' are in folders of their names",
    "src": "The Python packages",
    "tests": "Tests, by what they need",
    "tools": "Programs beside the training: conversion, rank tables, label files",
}


def tracked_files() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    return sorted(file for file in listed.stdout.splitlines() if (ROOT / file).is_file())


def sentence(text: str) -> str:
    """The first sentence, without its full stop."""
    line = text.strip().splitlines()[0] if text.strip() else ""
    return re.split(r"\.(?:\s|$)", line, maxsplit=1)[0]


def of_file(path: Path) -> str:
    """What a file says it is: its docstring, its first comment or its heading."""
    if path.name in FILES:
        return FILES[path.name]
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return sentence(ast.get_docstring(ast.parse(text)) or "")
    mark = {".md": "#", ".cc": "//", ".h": "//"}.get(path.suffix, "#")
    lines = (line for line in text.splitlines() if line.startswith(mark) and not line.startswith(("#!", "#include")))
    found = next((line for line in lines if not line.startswith(("#ifndef", "#define"))), "")
    return sentence(found.lstrip("#/ "))


def of_folder(path: Path) -> str:
    """What a folder says it is, in its __init__.py or README.md."""
    for name in ("__init__.py", "README.md"):
        if (path / name).is_file():
            return of_file(path / name)
    return FOLDERS.get(path.relative_to(ROOT).as_posix(), "")


def lines(files: list[str], folder: str, depth: int, level: int = 0) -> Iterator[str]:
    """The tree below `folder` ("" is the root), `depth` levels of folders deep."""
    prefix = f"{folder}/" if folder else ""
    below = [file[len(prefix) :] for file in files if file.startswith(prefix)]
    names = sorted({name.split("/")[0] for name in below}, key=lambda name: ("/" in name, name))
    for name in (name for name in names if (ROOT / prefix / name).is_file() and name != "__init__.py"):
        yield entry(name, of_file(ROOT / prefix / name), level)
    for name in (name for name in names if (ROOT / prefix / name).is_dir()):
        yield entry(f"{name}/", of_folder(ROOT / prefix / name), level)
        if depth > 1:
            yield from lines(files, f"{prefix}{name}", depth - 1, level + 1)


def entry(name: str, text: str, level: int) -> str:
    return f"{' ' * INDENT * level}{name:<{COLUMN - INDENT * level}}{text}".rstrip()


def tree(wanted: str) -> str:
    """`wanted` is "FOLDER DEPTH"; FOLDER "." is the root."""
    folder, depth = wanted.split()
    return "\n".join(lines(tracked_files(), "" if folder == "." else folder, int(depth))) + "\n"


def keys() -> str:
    """A table per group of keys, as in --help: the default in each model ("-": it has no such key), type, meaning."""
    configs = {name: importlib.import_module(f"src.{folder}.config").Config for name, folder in MODELS.items()}
    found: dict[str, dict[str, dict[str, str]]] = {}  # title, key, column
    first_rules: dict[str, Option] = {}  # of the first model that has the key
    for model, config in configs.items():
        types = types_of(config)
        for field in fields_of(config):
            row = found.setdefault(title_of(config, field.name), {}).setdefault(field.name, {})
            rule = field.metadata["option"]
            row[model] = "*" if field.default is REQUIRED else shown(field.default)
            row.setdefault("type", type_name(types[field.name]))
            row.setdefault("meaning", meaning(rule))
            if field.name != "model" and rule.choices != first_rules.setdefault(field.name, rule).choices:
                row["meaning"] += f"; {model}: {meaning(rule)}"
    return "\n".join(key_table(title, rows) for title, rows in found.items())


def meaning(rule: Option) -> str:
    choices = f" ({', '.join(str(choice) or repr('') for choice in rule.choices)})" if rule.choices else ""
    return (rule.help + choices).replace("|", "\\|")


def key_table(title: str, rows: dict[str, dict[str, str]]) -> str:
    head = f"| key | {' | '.join(MODELS)} | type | meaning |\n|---|{'---|' * len(MODELS)}---|---|\n"
    lines = (
        f"| `{key}` | {' | '.join(row.get(model, '-') for model in MODELS)} | {row['type']} | {row['meaning']} |\n"
        for key, row in rows.items()
    )
    return f"### {title[0].upper()}{title[1:]}\n\n{head}{''.join(lines)}"


def renewed(text: str) -> str:
    """A document whose parts are as the code is now."""
    text = TREE.sub(lambda block: block[1] + tree(block[2]) + block[4], text)
    return KEYS.sub(lambda block: f"{block[1]}\n{keys()}\n{block[3]}", text)


def documents() -> Iterator[Path]:
    """The documents that have such parts."""
    for name in tracked_files():
        text = (ROOT / name).read_text(encoding="utf-8") if name.endswith(".md") else ""
        if TREE.search(text) or KEYS.search(text):
            yield ROOT / name


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 if one is older than the code")
    only_check, old = parser.parse_args().check, []
    for path in documents():
        text = path.read_text(encoding="utf-8")
        if renewed(text) != text:
            old.append(path.relative_to(ROOT).as_posix())
            if not only_check:
                path.write_text(renewed(text), encoding="utf-8")
    print("\n".join(old))
    return 1 if old and only_check else 0


if __name__ == "__main__":
    sys.exit(main())
