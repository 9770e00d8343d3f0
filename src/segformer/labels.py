"""Which classes there are: Cityscapes' table of labels, or a class list file that belongs to other data.

A class list file is CSV with a header. `weight` (of the class in the loss) may be left out, and so may the row named
"ignore", whose index is the mask value that is neither trained on nor counted (255 without it):

    index,name,red,green,blue,weight
    0,street,128,64,128,1.0
    1,house,70,70,70,1.2
    255,ignore,0,0,0,

No MindSpore here.
"""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from src.engine.errors import UsageError, ZooError

IGNORE = 255
IGNORE_NAME = "ignore"
COLUMNS = ("index", "name", "red", "green", "blue")

Colour = tuple[int, int, int]


class Label(NamedTuple):
    """One row of Cityscapes' table; `id` is the value in files for submission, `train_id` the one that is predicted."""

    name: str
    id: int
    train_id: int
    category: str
    has_instances: bool
    ignore_in_eval: bool
    colour: Colour


CATEGORIES = """
void: unlabeled, ego vehicle, rectification border, out of roi, static, dynamic, ground
flat: road, sidewalk, parking, rail track
construction: building, wall, fence, guard rail, bridge, tunnel
object: pole, polegroup, traffic light, traffic sign
nature: vegetation, terrain
sky: sky
human: person, rider
vehicle: car, truck, bus, caravan, trailer, train, motorcycle, bicycle, license plate
"""
HAS_INSTANCES = ("human", "vehicle")  # categories; a license plate has no id and so no instances
NO_ID = "license plate"
TRAINED = """
road, sidewalk, building, wall, fence, pole, traffic light, traffic sign, vegetation, terrain, sky, person, rider, car,
truck, bus, train, motorcycle, bicycle
"""
COLOURS = {  # black where not named
    "dynamic": (111, 74, 0),
    "ground": (81, 0, 81),
    "road": (128, 64, 128),
    "sidewalk": (244, 35, 232),
    "parking": (250, 170, 160),
    "rail track": (230, 150, 140),
    "building": (70, 70, 70),
    "wall": (102, 102, 156),
    "fence": (190, 153, 153),
    "guard rail": (180, 165, 180),
    "bridge": (150, 100, 100),
    "tunnel": (150, 120, 90),
    "pole": (153, 153, 153),
    "polegroup": (153, 153, 153),
    "traffic light": (250, 170, 30),
    "traffic sign": (220, 220, 0),
    "vegetation": (107, 142, 35),
    "terrain": (152, 251, 152),
    "sky": (70, 130, 180),
    "person": (220, 20, 60),
    "rider": (255, 0, 0),
    "car": (0, 0, 142),
    "truck": (0, 0, 70),
    "bus": (0, 60, 100),
    "caravan": (0, 0, 90),
    "trailer": (0, 0, 110),
    "train": (0, 80, 100),
    "motorcycle": (0, 0, 230),
    "bicycle": (119, 11, 32),
    "license plate": (0, 0, 142),
}
WEIGHTS = (  # of the 19 classes in the loss, by train id
    (0.8373, 0.918, 0.866, 1.0345, 1.0166, 0.9969, 0.9754, 1.0489, 0.8786, 1.0023)
    + (0.9539, 0.9843, 1.1116, 0.9037, 1.0865, 1.0955, 1.0865, 1.1529, 1.0507)
)


def words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def cityscapes_labels() -> tuple[Label, ...]:
    """Ids count through the categories from 0; only the trained classes are evaluated."""
    trained = {name: index for index, name in enumerate(words(TRAINED))}
    rows = [line.split(": ") for line in CATEGORIES.strip().splitlines()]
    named = [(name, category) for category, names in rows for name in words(names)]
    return tuple(
        Label(
            name=name,
            id=-1 if name == NO_ID else index,
            train_id=trained.get(name, -1 if name == NO_ID else IGNORE),
            category=category,
            has_instances=category in HAS_INSTANCES and name != NO_ID,
            ignore_in_eval=name not in trained,
            colour=COLOURS.get(name, (0, 0, 0)),
        )
        for index, (name, category) in enumerate(named)
    )


LABELS = cityscapes_labels()
BY_NAME = {label.name: label for label in LABELS}


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


def cityscapes_classes() -> ClassList:
    trained = [BY_NAME[name] for name in words(TRAINED)]
    return ClassList(
        names=tuple(label.name for label in trained),
        palette=tuple(label.colour for label in trained),
        weights=WEIGHTS,
        ids=tuple(label.id for label in trained),
    )


CITYSCAPES = cityscapes_classes()


def number(row: dict, column: str, where: str, low: int, high: int) -> int:
    text = (row[column] or "").strip()
    if not text.isdecimal() or not low <= int(text) <= high:
        raise UsageError(f"{column} is {text!r} in {where}; it has to be a whole number from {low} to {high}")
    return int(text)


def weight(row: dict, where: str) -> float:
    text = (row.get("weight") or "1").strip()
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise UsageError(f"weight is {text!r} in {where}; it has to be a number that is not negative")
    return value


def read_rows(path: Path) -> list[tuple[str, dict]]:
    """(place for error messages, row) of each line that is not empty."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the class list {path}: {error}; give a CSV file") from error
    reader = csv.DictReader(io.StringIO(text), skipinitialspace=True)
    missing = [column for column in COLUMNS if column not in (reader.fieldnames or [])]
    if missing:
        raise UsageError(f"{path} has no column '{missing[0]}'; its first line has to be {','.join(COLUMNS)}[,weight]")
    return [(f"{path}, line {reader.line_num}", row) for row in reader]


def read_class_list(path: Path) -> ClassList:
    """Read and check a class list file; see the top of this file."""
    classes: dict[int, tuple[str, Colour, float]] = {}
    ignore = IGNORE
    for where, row in read_rows(path):
        index, name = number(row, "index", where, 0, 255), (row["name"] or "").strip()
        if name == IGNORE_NAME:
            ignore = index
            continue
        if not name or name in [known for known, _, _ in classes.values()]:
            raise UsageError(f"the name {name!r} in {where} is empty or a second one; give each class its own")
        if index in classes:
            raise UsageError(f"index {index} in {where} is there twice; give each class its own")
        colour = tuple(number(row, column, where, 0, 255) for column in ("red", "green", "blue"))
        classes[index] = (name, colour, weight(row, where))
    count = len(classes)
    if count < 2 or set(classes) != set(range(count)):
        raise UsageError(f"{path} gives {count} classes the indices {sorted(classes)}; number two or more from 0 on")
    if ignore < count:
        raise UsageError(f"{path} ignores index {ignore}, which is a class; give one from {count} to 255")
    names, palette, weights = zip(*(classes[index] for index in range(count)))
    return ClassList(names, palette, weights, tuple(range(count)), ignore, str(path))


def annotation_table() -> dict[str, int | None]:
    """Name in an annotation -> train id, or None for what is not drawn because it has no id."""
    return {label.name: None if label.id < 0 else label.train_id for label in LABELS}


def require_known(name: str, known: dict[str, int | None]) -> str:
    """The label that an annotation's `name` stands for: itself, or without "group" ("cargroup" is several cars)."""
    single = name[: -len("group")] if name not in known and name.endswith("group") else name
    if single not in known:
        raise ZooError(f"the label {name!r} is none of Cityscapes'; correct the annotation")
    return single
