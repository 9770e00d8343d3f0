"""Cityscapes' table of labels. No MindSpore here."""

from __future__ import annotations

from typing import NamedTuple

from src.segformer.data.class_list import IGNORE, ClassList, Colour


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


def cityscapes_classes() -> ClassList:
    trained = [BY_NAME[name] for name in words(TRAINED)]
    return ClassList(
        names=tuple(label.name for label in trained),
        palette=tuple(label.colour for label in trained),
        weights=WEIGHTS,
        ids=tuple(label.id for label in trained),
    )


CITYSCAPES = cityscapes_classes()
