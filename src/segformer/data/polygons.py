"""Polygon annotations of Cityscapes (JSON) -> masks of train ids, pixel for pixel like Cityscapes' own converter.

Objects are drawn in order, later ones over earlier ones; what no polygon covers is ignored. No MindSpore here.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from src.engine.data.images import MAX_PIXELS
from src.engine.errors import ZooError, first_line
from src.engine.io.files import replace_file
from src.segformer.data.class_list import IGNORE
from src.segformer.data.labels import LABELS

POLYGONS, TRAIN_IDS = "_polygons.json", "_labelTrainIds.png"
FEWEST_POINTS = 2  # a polygon of two points is a line

# by name; None for what is not drawn because it has no id
TRAIN_ID_OF = {label.name: None if label.id < 0 else label.train_id for label in LABELS}


def require_known(name: str) -> str:
    """The label that an annotation's `name` stands for: itself, or without "group" ("cargroup" is several cars)."""
    single = name[: -len("group")] if name not in TRAIN_ID_OF and name.endswith("group") else name
    if single not in TRAIN_ID_OF:
        raise ZooError(f"the label {name!r} is none of Cityscapes'; correct the annotation")
    return single


def points(polygon: Any, name: str) -> list[tuple[float, float]]:
    """Check the points of one object; they may lie outside the image."""
    try:
        checked = [(point[0], point[1]) for point in polygon]
        finite = all(type(value) in (int, float) and math.isfinite(value) for point in checked for value in point)
    except (TypeError, IndexError, KeyError):
        checked, finite = [], False
    if not finite or len(checked) < FEWEST_POINTS:
        raise ZooError(f"a polygon of {name!r} is no list of two or more points [x, y]; correct the annotation")
    return checked


def draw(annotation: dict) -> np.ndarray:
    """Annotation -> (imgHeight, imgWidth) uint8 of train ids. Raises ZooError where it is not a valid annotation."""
    try:
        width, height = int(annotation["imgWidth"]), int(annotation["imgHeight"])
        objects = [(str(entry["label"]), entry["polygon"], entry.get("deleted", 0)) for entry in annotation["objects"]]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ZooError(
            f"imgWidth, imgHeight or an object's label or polygon is missing or wrong "
            f"({type(error).__name__}: {first_line(error)}); correct the annotation"
        ) from error
    if width <= 0 or height <= 0 or width * height > MAX_PIXELS:
        raise ZooError(f"the size is {width}x{height}; it has to be positive and at most {MAX_PIXELS} pixels")
    mask = Image.new("L", (width, height), IGNORE)
    drawer = ImageDraw.Draw(mask)
    for name, polygon, deleted in objects:
        if deleted:
            continue
        train_id = TRAIN_ID_OF[require_known(name)]
        if train_id is not None:
            drawer.polygon(points(polygon, name), fill=train_id)
    return np.asarray(mask)


def target(annotation_file: Path) -> Path:
    """x_gtFine_polygons.json -> x_gtFine_labelTrainIds.png in the same folder."""
    return annotation_file.with_name(annotation_file.name[: -len(POLYGONS)] + TRAIN_IDS)


def is_current(annotation_file: Path) -> bool:
    """Whether the mask is there and not older than its annotation (masks appear whole or not at all)."""
    mask = target(annotation_file)
    return mask.is_file() and mask.stat().st_mtime_ns >= annotation_file.stat().st_mtime_ns


def convert(annotation_file: Path) -> None:
    """Write the mask of one annotation. Raises ZooError, which says what is wrong but not in which file."""
    try:
        annotation = json.loads(annotation_file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ZooError(f"cannot be read as JSON ({first_line(error)}); download or export it again") from error
    if not isinstance(annotation, dict):
        raise ZooError("holds no annotation; it has to be an object with imgWidth, imgHeight and objects")
    mask = Image.fromarray(draw(annotation))
    replace_file(target(annotation_file), lambda temporary: mask.save(temporary))
