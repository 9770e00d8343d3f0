"""Checking images and masks: pairs, values against the class list, sizes, share of every class. No MindSpore here."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from src.engine.data import images
from src.engine.data.tree import Tree, open_tree
from src.engine.errors import ZooError
from src.inspection import page
from src.inspection.data import pictures
from src.inspection.data.findings import FAILS, NOTE, WARNING, Checked, Table
from src.inspection.data.pictures import counted, few
from src.inspection.data.survey import Seen, Survey, empty, for_all, look
from src.inspection.page import Picture
from src.segformer.data import dataset
from src.segformer.data.class_list import ClassList
from src.segformer.data.dataset import Pairs

RARE = 0.001  # share of the pixels below which a class is worth a warning
MOSTLY_IGNORED = 0.5  # share of the pixels
EXAMPLES = 8  # pairs that are shown


@dataclass
class Split:
    """The pairs of a split, what is seen of their images, and how often every value is in their masks."""

    pairs: Pairs
    seen: Survey
    pixels: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    images_with: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    refused: dict[int, str] = field(default_factory=dict)  # masks that end a training, and why

    def name(self, index: int) -> str:
        return self.pairs.images.name(index)


def check(path: str, class_list: str, on_missing_label: str, on_bad_image: str, reduces_zero: bool = False) -> Checked:
    """Check the images and masks of train and val below `path`."""
    checked = Checked(f"{path}: segmentation")
    splits: dict[str, Split] = {}
    for name in ("train", "val"):
        pairs = pairs_of(path, name, class_list, on_missing_label, checked)
        if pairs is not None:
            splits[name] = survey_pairs(dataclasses.replace(pairs, reduces_zero=reduces_zero), name)
    if not splits:
        return checked
    for name, split in splits.items():
        check_masks(name, split, path, checked)
    check_classes(splits, checked)

    def named(split: str, index: int) -> str:
        return splits[split].name(index)

    surveys = {name: split.seen for name, split in splits.items()}
    pictures.check(surveys, on_bad_image, named, checked)
    checked.galleries.append(("Examples", functools.partial(examples, next(iter(splits.values())))))
    return checked


def pairs_of(path: str, split: str, class_list: str, on_missing_label: str, checked: Checked) -> Pairs | None:
    """The pairs that training lists; where it refuses, why, and those that can be listed anyway. None without any.

    Raises UsageError for what is no data set, and for a class list that cannot be used.
    """
    root = open_tree(path)
    dataset.classes_of(root, class_list)
    if split == "val" and not root.below(f"{dataset.layout(root)}/val").files():
        checked.say(
            WARNING, f"there are no images in {root.where / dataset.layout(root) / 'val'}; evaluation needs them"
        )
        return None
    try:
        return dataset.find_pairs(path, split, class_list, on_missing_label)
    except ZooError as error:
        checked.say(FAILS, str(error))
    try:
        return dataset.find_pairs(path, split, class_list, "skip")
    except ZooError:  # the same reason
        return None


@dataclass(frozen=True)
class Looked:
    """What a pair is: its image, and how often each value is in its mask (256,); or why there is none."""

    image: Seen | str
    values: np.ndarray | None = None
    refused: str = ""


def look_at(pairs: Pairs, index: int) -> Looked:
    try:
        seen, pixels = look(pairs.images.read(index))
    except images.BadImage as error:
        return Looked(str(error))
    try:
        mask = dataset.read_mask(pairs, index, pixels.shape[:2])
    except images.BadImage as error:
        return Looked(str(error))
    except ZooError as error:
        return Looked(seen, refused=str(error))
    return Looked(seen, np.bincount(mask.ravel(), minlength=256))


def survey_pairs(pairs: Pairs, title: str) -> Split:
    """Read all images and masks of a split."""
    split = Split(pairs, empty(pairs.images))
    for index, found in enumerate(for_all(functools.partial(look_at, pairs), len(pairs), title)):
        split.seen.add(index, found.image)
        if found.refused:
            split.refused[index] = found.refused
        elif found.values is not None:
            split.pixels += found.values
            split.images_with += found.values > 0
    return split


def check_masks(name: str, split: Split, path: str, checked: Checked) -> None:
    """Masks that end a training, images without one and masks without an image."""
    if split.refused:
        reasons = Counter(split.refused.values())
        first = split.refused[min(split.refused)]
        more = f" ({counted(len(reasons) - 1, 'more mask')} refused)" if len(reasons) > 1 else ""
        checked.say(FAILS, f"{name}: {first}{more}", pictures.shown(*places(split, sorted(split.refused))))
    if split.pairs.without_mask:
        lost = split.pairs.without_mask
        checked.say(WARNING, f"{name}: {counted(len(lost), 'image')} without a mask: {few(lost)}")
    spare = masks_without_image(split.pairs, name, open_tree(path))
    if spare:
        checked.say(NOTE, f"{name}: {counted(len(spare), 'mask')} without an image: {few(spare)}")


def masks_without_image(pairs: Pairs, split: str, root: Tree) -> list[str]:
    """Files beside the masks in use that end as they do."""
    is_city = dataset.layout(root) == dataset.CITY_IMAGES
    folder = f"{dataset.CITY_MASKS if is_city else dataset.MASKS}/{split}"
    ending = dataset.MASK_START + dataset.TRAIN_IDS if is_city else ".png"
    used = {pairs.masks.name(index) for index in range(len(pairs))}
    found = (f"{folder}/{file}" for file in root.below(folder).files() if file.lower().endswith(ending.lower()))
    return [name for name in found if name not in used]


def check_classes(splits: dict[str, Split], checked: Checked) -> None:
    """Images and the share of pixels per class, and what is odd about them."""
    totals: list[list[str | int | float]] = [
        ["pairs", *(len(split.pairs) for split in splits.values())],
        ["unreadable", *(len(split.seen.bad) for split in splits.values())],
        ["without mask", *(len(split.pairs.without_mask) for split in splits.values())],
        ["masks refused", *(len(split.refused) for split in splits.values())],
    ]
    checked.tables.append(Table("images", ["images", *splits], totals))
    classes = next(iter(splits.values())).pairs.classes
    shares = {name: split.pixels / max(1, split.pixels.sum()) for name, split in splits.items()}
    header = ["class", *(f"{what}, {name}" for name in splits for what in ("pixels in %", "images"))]
    rows: list[list[str | int | float]] = []
    for index, called in [*enumerate(classes.names), (classes.ignore, "(ignored)")]:
        cells = [[float(100 * shares[name][index]), int(split.images_with[index])] for name, split in splits.items()]
        rows.append([f"{index} {called}", *(value for pair in cells for value in pair)])
    checked.tables.append(Table("class", header, rows))
    for name, share in shares.items():
        check_shares(name, share, splits[name].images_with, classes, checked)


def check_shares(name: str, share: np.ndarray, images_with: np.ndarray, classes: ClassList, checked: Checked) -> None:
    if not images_with.any():
        return
    if share[classes.ignore] > MOSTLY_IGNORED:
        checked.say(WARNING, f"{name}: {100 * share[classes.ignore]:.1f} % of all pixels are ignored")
    counted_share = share[: len(classes)] / max(1e-12, share[: len(classes)].sum())
    missing = [classes.names[i] for i in np.flatnonzero(images_with[: len(classes)] == 0)]
    rare = [f"{classes.names[i]} ({100 * counted_share[i]:.3f} %)" for i in np.flatnonzero(counted_share < RARE)]
    rare = [text for text in rare if text.rpartition(" (")[0] not in missing]
    if missing:
        checked.say(WARNING, f"{name}: no pixel of {counted(len(missing), 'class', 'classes')}: {few(missing)}")
    if rare:
        checked.say(WARNING, f"{name}: few pixels of {counted(len(rare), 'class', 'classes')}: {few(rare)}")


def places(split: Split, indices: list[int]) -> tuple[list[pictures.Place], list[str]]:
    return [(split.seen, index) for index in indices], [split.name(index) for index in indices]


def examples(split: Split) -> Iterator[Picture]:
    """The first images, each beside its mask in the colours of the class list."""
    good = [index for index in split.seen.good.tolist() if index not in split.refused]
    for index in good[:EXAMPLES]:
        try:
            image, mask = split.pairs.read(index)
        except (images.BadImage, ZooError):  # gone since it was surveyed
            continue
        coloured = split.pairs.classes.colours()[mask]
        yield Picture(page.thumbnail(np.hstack([image, coloured]), 480), split.name(index))
