"""Checking class folders: what training refuses, counts per class, classes that differ, pictures. No MindSpore here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from src.engine.data.image_folder import TRAIN_FOLDERS, find_held_out, find_root, members_of, require_classes, scan_tree
from src.engine.data.source import LabelledImages
from src.engine.data.tree import Tree, open_tree
from src.engine.errors import UsageError, ZooError
from src.inspection.data import pictures
from src.inspection.data.duplicates import groups
from src.inspection.data.findings import FAILS, NOTE, WARNING, Checked, Table
from src.inspection.data.pictures import counted, few
from src.inspection.data.survey import Survey, survey

UNEVEN = 10  # times as many images as in the smallest class from which on this is worth a warning
EXAMPLES = 4  # pictures of a class that are shown
MOST_EXAMPLES = 400  # pictures of all classes


@dataclass(frozen=True)
class Split:
    """The images of a split, and what is seen of them."""

    images: LabelledImages
    seen: Survey

    def name(self, index: int) -> str:
        return self.images.source.name(index)

    def counts(self, names: list[str]) -> list[int]:
        """Images per class of `names`."""
        counts = np.bincount(self.images.labels, minlength=len(self.images.class_to_index))
        index = self.images.class_to_index
        return [int(counts[index[name]]) if name in index else 0 for name in names]


def check(path: str, on_bad_image: str) -> Checked:
    """Check train/ and val/ below `path`, or the class folders there and val/ beside them."""
    checked = Checked(f"{path}: classification")
    root = find_root(open_tree(path), TRAIN_FOLDERS)
    train = images_of(root, None, checked)
    if train is None:
        raise UsageError(f"{root.where} holds no class folders; put the images into one folder per class")
    try:
        require_classes(train, 0)
    except ZooError as error:
        checked.say(FAILS, str(error))
    found = {"train": train}
    beside = find_held_out(root)
    if beside is None or beside.where == root.where:
        checked.say(WARNING, f"there is no val/ beside {root.where}; run_eval needs --eval_dataset_path")
    elif (val := images_of(beside, train.class_to_index, checked)) is not None:
        found["val"] = val
    splits = {name: Split(images, survey(images.source, name)) for name, images in found.items()}
    for name, split in splits.items():
        check_left_out(name, split.images, on_bad_image, checked)
    check_classes(splits, checked)

    def named(split: str, index: int) -> str:
        return splits[split].name(index)

    for name, split in splits.items():
        check_contradictions(name, split, checked)
    pictures.check({name: split.seen for name, split in splits.items()}, on_bad_image, named, checked)
    checked.galleries.append(("Examples", pictures.shown_all(*examples(splits["train"]))))
    return checked


def images_of(root: Tree, classes: dict[str, int] | None, checked: Checked) -> LabelledImages | None:
    """The images that training lists; where it refuses, why, and all that could be listed anyway."""
    try:
        return scan_tree(root, classes)
    except ZooError as error:
        checked.say(FAILS, str(error))
    try:
        names = root.folders()
    except OSError as error:
        raise ZooError(f"cannot list {root.where}: {error.strerror}; give a folder that can be read") from error
    members = {name: members_of(root, name) for name in names}
    class_to_index = {name: index for index, name in enumerate(names)}
    files = [file for images, _ in members.values() for file in images]
    if not files:
        return None
    labels = [class_to_index[name] for name, (images, _) in members.items() for _ in images]
    others = tuple(file for _, others in members.values() for file in others)
    return LabelledImages(root.source(files), np.asarray(labels, np.int32), class_to_index, others)


def check_left_out(split: str, images: LabelledImages, on_bad_image: str, checked: Checked) -> None:
    """Files that are no images by their names: training names and skips them, or refuses to."""
    if images.left_out:
        text = f"{split}: {counted(len(images.left_out), 'file')} in class folders that is no image by its name"
        fails = on_bad_image == "error"
        checked.say(FAILS if fails else NOTE, f"{text}: {few(images.left_out)}")


def check_classes(splits: dict[str, Split], checked: Checked) -> None:
    """Images per class and split, and what is odd about them."""
    names = sorted({name for split in splits.values() for name in split.images.class_to_index})
    counts = {split: found.counts(names) for split, found in splits.items()}
    rows: list[list[str | int | float]] = [
        [name, *(counts[split][row] for split in splits)] for row, name in enumerate(names)
    ]
    totals: list[list[str | int | float]] = [["all", *(sum(counts[split]) for split in splits)]]
    totals += [["unreadable", *(len(found.seen.bad) for found in splits.values())]]
    checked.tables += [Table("images", ["images", *splits], totals), Table("class", ["class", *splits], rows)]
    check_balance([(count, name) for count, name in zip(counts["train"], names) if count], checked)
    if "val" in splits:
        missing = [name for name, one, other in zip(names, counts["train"], counts["val"]) if one and not other]
        if missing:
            checked.say(WARNING, f"val has no images of {counted(len(missing), 'class', 'classes')}: {few(missing)}")


def check_balance(sizes: list[tuple[int, str]], checked: Checked) -> None:
    """How much the classes, as (images, name), differ in size."""
    (least, rare), (most, common) = min(sizes), max(sizes)
    text = f"the largest class, {common}, has {most} images of training and the smallest, {rare}, {least}"
    if most == least:
        checked.say(NOTE, f"every class has {counted(most, 'image')} of training")
    elif most >= UNEVEN * least:
        checked.say(WARNING, f"{text}: {most / least:.0f} times as many")
    else:
        checked.say(NOTE, text)


def check_contradictions(name: str, split: Split, checked: Checked) -> None:
    """Pictures that are there in two classes: one of them is wrong."""
    good, labels = split.seen.good, split.images.labels
    found = [[int(good[i]) for i in members] for members in groups(split.seen.digests[good])]
    found = [members for members in found if len({int(labels[index]) for index in members}) > 1]
    if found:
        told = [" = ".join(split.name(index) for index in members) for members in found]
        places = [(split.seen, index) for members in found for index in members]
        text = f"{name}: {counted(len(found), 'picture')} in more than one class: {few(told)}"
        checked.say(WARNING, text, pictures.shown(places, [split.name(index) for _, index in places]))


def examples(split: Split) -> tuple[list[pictures.Place], list[str]]:
    """The first pictures of every class."""
    classes = split.images.class_names
    each = max(1, min(EXAMPLES, MOST_EXAMPLES // max(1, len(classes))))
    chosen: list[int] = []
    for label in range(min(len(classes), MOST_EXAMPLES)):
        of_class = np.flatnonzero((split.images.labels == label) & (split.seen.sizes[:, 0] > 0))
        chosen += of_class[:each].tolist()
    return [(split.seen, index) for index in chosen], [split.name(index) for index in chosen]
