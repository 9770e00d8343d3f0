"""The file that measurements are kept in: one JSON object per line, appended as soon as it is known."""

from __future__ import annotations

import json
import os
from pathlib import Path

from src.engine.errors import UsageError, ZooError

SAME = ("processor", "cores")  # what has to be alike in all lines: ratios are between numbers of one machine


class Results:
    """What an earlier run and this one have measured. A half-written last line is dropped.

    A line holds `key`, `round`, `processor`, `cores`, and either `answer` or the reason in `failed` or `not_built`.
    """

    def __init__(self, file: Path, machine: dict):
        self.file, self.machine = file, machine
        self.lines = read(file)
        for line in self.lines:
            for name in SAME:
                if line[name] != machine[name]:
                    raise UsageError(
                        f"{file} has measurements with {name} {line[name]!r} and here it is {machine[name]!r}; "
                        "give another folder with --out"
                    )

    def add(self, key: str, number: int, found: dict) -> None:
        """Append what was found for a key in a round; on disk when this returns."""
        line = {"key": key, "round": number, **self.machine, **found}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a", encoding="utf-8") as opened:
            opened.write(json.dumps(line) + "\n")
            opened.flush()
            os.fsync(opened.fileno())
        self.lines.append(line)

    def has(self, key: str, number: int) -> bool:
        return any(line["round"] == number and "answer" in line for line in self.of(key))

    def of(self, key: str) -> list[dict]:
        return [line for line in self.lines if line["key"] == key]

    def values(self, key: str, field: str) -> list[float]:
        """The field of all answers, one per round."""
        return [line["answer"][field] for line in self.of(key) if "answer" in line]

    def reason(self, key: str) -> str:
        """Why there is no answer, as a word for a table and the sentence; empty where it was never asked."""
        last = self.of(key)[-1:]
        return next(
            (f"{kind.replace('_', ' ')}: {line[kind]}" for line in last for kind in REASONS if kind in line), ""
        )

    def versions(self, key: str, packages: tuple[str, ...]) -> str:
        """The packages with all versions that the answers name; two where they changed in between."""
        known = [line["answer"]["versions"] for line in self.of(key) if "answer" in line]
        found = [f"{package} {version}" for package in packages for version in sorted({v[package] for v in known})]
        return ", ".join(found)


REASONS = ("not_built", "failed")


def read(file: Path) -> list[dict]:
    """All lines. What a stopped process left of its last line is cut off, so that the next one begins on a new line."""
    if not file.is_file():
        return []
    content = file.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        with file.open("r+b") as opened:
            opened.truncate(len(whole))
    found = []
    for number, text in enumerate(whole.decode("utf-8", "replace").splitlines(), start=1):
        try:
            line = json.loads(text)
            found.append({**line, **{name: line[name] for name in ("key", "round", *SAME)}})
        except (ValueError, TypeError, KeyError) as error:
            raise ZooError(f"{file}, line {number} is no measurement; remove the line or give another --out") from error
    return found
