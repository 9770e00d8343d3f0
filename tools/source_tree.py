"""Print the source tree with the first sentence of every module, or write it into the documents that show it.

python tools/source_tree.py [--write]
"""

from __future__ import annotations

import argparse
import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"(<!-- tree: ([^\n]*) -->\n```text\n)(.*?)(```)", re.S)
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
DOCUMENTS = ("README.md", "docs/architecture.md")


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


def with_trees(text: str) -> str:
    """A document with its trees as they are now."""
    return BLOCK.sub(lambda block: block[1] + tree(block[2]) + block[4], text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="into the documents, instead of printing")
    if not parser.parse_args().write:
        print(tree("src 3"), end="")
        return 0
    for path in (ROOT / name for name in DOCUMENTS):
        if path.is_file():
            path.write_text(with_trees(path.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
