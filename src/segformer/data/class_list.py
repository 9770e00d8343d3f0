"""What the indices in a mask mean: names, colours and weights of classes, read from a file or given. No MindSpore here.

A class list file is CSV with a header. `weight` (of the class in the loss) may be left out, and so may the row named
"ignore", whose index is the mask value that is neither trained on nor counted (255 without it):

    index,name,red,green,blue,weight
    0,street,128,64,128,1.0
    1,house,70,70,70,1.2
    255,ignore,0,0,0,
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.engine.config import shown
from src.engine.errors import UsageError

IGNORE = 255
MOST_DIGITS = 9  # of an index or a colour
IGNORE_NAME = "ignore"
COLUMNS = ("index", "name", "red", "green", "blue")

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class ClassList:
    """What the indices 0..K-1 mean; `ids` are the values of label files for submission."""

    names: tuple[str, ...]
    palette: tuple[Colour, ...]
    weights: tuple[float, ...]
    ids: tuple[int, ...]
    ignore: int = IGNORE
    source: str = "Cityscapes"

    def __len__(self) -> int:
        return len(self.names)

    def colours(self) -> np.ndarray:
        """(256, 3) uint8 RGB, indexed by mask value; black for what is no class."""
        table = np.zeros((256, 3), np.uint8)
        table[: len(self)] = self.palette
        return table

    def valid(self) -> np.ndarray:
        """(256,) bool: which values a mask may hold."""
        table = np.zeros(256, bool)
        table[: len(self)] = True
        table[self.ignore] = True
        return table

    def to_ids(self) -> np.ndarray:
        """(256,) uint8: train id -> id; what is no class becomes 0, Cityscapes' "unlabeled"."""
        table = np.zeros(256, np.uint8)
        table[: len(self)] = self.ids
        return table

    def from_ids(self) -> np.ndarray:
        """(256,) uint8: id -> train id; what is no class becomes the ignored value."""
        table = np.full(256, self.ignore, np.uint8)
        table[list(self.ids)] = np.arange(len(self))
        return table

    def require(self, class_num: int, ignore_label: int) -> None:
        """Raise UsageError where a configuration has another number of classes or ignores another value."""
        if class_num != len(self):
            raise UsageError(f"class_num is {class_num} but {self.source} names {len(self)} classes; give {len(self)}")
        if ignore_label != self.ignore:
            raise UsageError(
                f"dataset_ignore_label is {ignore_label} but {self.source} ignores {self.ignore}; give {self.ignore}"
            )


def of_names(names: Sequence[str], source: str) -> ClassList:
    """A list of names alone: the colours are those that PASCAL VOC gives to the indices from 1 on, the weights 1."""
    count = len(names)
    if not 2 <= count <= IGNORE:
        raise UsageError(f"{source} names {count} classes; a class list has 2 to {IGNORE}")
    palette = tuple(voc_colour(index + 1) for index in range(count))
    return ClassList(tuple(names), palette, (1.0,) * count, tuple(range(count)), source=source)


def voc_colour(index: int) -> Colour:
    """PASCAL VOC's rule: the bits of the index, three at a time, become the highest bits of red, green and blue."""
    red, green, blue = (
        sum(((index >> (3 * place + channel)) & 1) << (7 - place) for place in range(8)) for channel in range(3)
    )
    return red, green, blue


def number(row: dict, column: str, where: str, low: int, high: int) -> int:
    text = (row[column] or "").strip()
    if not text.isdecimal() or len(text) > MOST_DIGITS or not low <= int(text) <= high:
        raise UsageError(f"{column} is {shown(text)} in {where}; it has to be a whole number from {low} to {high}")
    return int(text)


def weight(row: dict, where: str) -> float:
    text = (row.get("weight") or "1").strip()
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise UsageError(f"weight is {shown(text)} in {where}; it has to be a number that is not negative")
    return value


def read_rows(data: bytes, path: str) -> list[tuple[str, dict]]:
    """(place for error messages, row) of each line that is not empty."""
    try:
        text = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig").read()  # with any line ends
    except UnicodeDecodeError as error:
        raise UsageError(f"cannot read the class list {path}: {error}; give a CSV file") from error
    reader = csv.DictReader(io.StringIO(text), skipinitialspace=True)
    try:
        missing = [column for column in COLUMNS if column not in (reader.fieldnames or [])]
        rows = [(f"{path}, line {reader.line_num}", row) for row in reader]
    except csv.Error as error:
        raise UsageError(f"{path}, line {reader.line_num + 1} is not CSV: {error}; correct it") from error
    if missing:
        raise UsageError(f"{path} has no column '{missing[0]}'; its first line has to be {','.join(COLUMNS)}[,weight]")
    return rows


def read_class_list(path: Path) -> ClassList:
    """Read and check a class list file; see the top of this file."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the class list {path}: {error}; give a CSV file") from error
    return parse_class_list(data, str(path))


def parse_class_list(data: bytes, path: str) -> ClassList:
    """Check the bytes of the class list file that `path` names."""
    classes: dict[int, tuple[str, Colour, float]] = {}
    ignore = IGNORE
    for where, row in read_rows(data, path):
        index, name = number(row, "index", where, 0, 255), (row["name"] or "").strip()
        if name == IGNORE_NAME:
            ignore = index
            continue
        if not name or name in [known for known, _, _ in classes.values()]:
            raise UsageError(f"the name {shown(name)} in {where} is empty or a second one; give each class its own")
        if index in classes:
            raise UsageError(f"index {index} in {where} is there twice; give each class its own")
        red, green, blue = (number(row, column, where, 0, 255) for column in ("red", "green", "blue"))
        classes[index] = (name, (red, green, blue), weight(row, where))
    count = len(classes)
    if count < 2 or set(classes) != set(range(count)):
        raise UsageError(f"{path} gives {count} classes the indices {sorted(classes)}; number two or more from 0 on")
    if ignore < count:
        raise UsageError(f"{path} ignores index {ignore}, which is a class; give one from {count} to 255")
    names, palette, weights = zip(*(classes[index] for index in range(count)))
    return ClassList(names, palette, weights, tuple(range(count)), ignore, path)
