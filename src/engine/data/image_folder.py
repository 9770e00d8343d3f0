"""Class folders as labelled images: classes sorted by name, files sorted within their class. No MindSpore here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from src.engine.config.paths import ARCHIVES, is_archive
from src.engine.data.archive import IndexFolder
from src.engine.data.images import IMAGE_SUFFIXES
from src.engine.data.source import Files, LabelledImages, Source
from src.engine.data.tree import EVAL_FOLDERS, TRAIN_FOLDERS, Folder, Tree, open_tree
from src.engine.errors import UsageError, ZooError

__all__ = [
    "EVAL_FOLDERS", "TRAIN_FOLDERS", "find_held_out", "find_images", "find_root", "members_of", "require_classes",
    "scan", "scan_tree",
]  # fmt: skip


def find_root(tree: Tree, splits: tuple[str, ...]) -> Tree:
    """`tree` itself, or its sub-folder named in `splits` when that one holds the class folders."""
    for name in splits:
        if tree.has_folder(name) and (candidate := tree.below(name)).folders():
            return candidate
    return tree


def find_held_out(train: Tree) -> Tree | None:
    """The folder beside that of training which holds the images to evaluate on."""
    beside = (above.below(name) for above in train.parents for name in EVAL_FOLDERS if above.has_folder(name))
    return next(beside, None)


def find_images(data_path: str, output_path: str, images_in: Callable[[Tree], Tree] | None = None) -> Source:
    """The image `data_path`, or all images in that folder or archive and below it, in a fixed order.

    `images_in` is the part of a folder that holds the images. `output_path`, hidden files and other files are left out.
    """
    given, output, suffixes = Path(data_path).expanduser(), Path(output_path).expanduser().resolve(), IMAGE_SUFFIXES
    if not given.exists():
        raise UsageError(f"data_path is {given}, which does not exist; give an image or a folder of images")
    if given.is_file() and not is_archive(data_path):
        if not given.name.lower().endswith(suffixes):
            raise UsageError(
                f"data_path is {given}; an image has to end in {' '.join(suffixes)}, an archive in {' '.join(ARCHIVES)}"
            )
        return Files(given.parent, (given.name,))
    tree = open_tree(data_path)
    tree = images_in(tree) if images_in else tree
    if output == tree.where.resolve():
        raise UsageError(f"infer_output_path is the folder of the images, {tree.where}; choose another one")
    names = tree.files(leave_out=output) if isinstance(tree, Folder) else tree.files()
    images = [name for name in names if name.lower().endswith(suffixes)]
    if not images:
        raise ZooError(f"{tree.where} holds no images ({' '.join(suffixes)}); give a folder that does")
    return tree.source(images)


def members_of(root: Tree, name: str) -> tuple[list[str], list[str]]:
    """The images in a class folder of `root` and its sub-folders, and its other files; hidden files are left out."""
    images: list[str] = []
    others: list[str] = []
    for file in sorted(f"{name}/{file}" for file in root.below(name).files()):
        (images if file.lower().endswith(IMAGE_SUFFIXES) else others).append(file)
    return images, others


def scan(
    path: str,
    splits: tuple[str, ...],
    class_to_index: dict[str, int] | None = None,
    indexes: IndexFolder | None = None,
) -> LabelledImages:
    """List the images below `path`, a folder or an archive, whose index is kept in `indexes`; see `scan_tree`."""
    return scan_tree(find_root(open_tree(path, indexes), splits), class_to_index)


def scan_tree(root: Tree, class_to_index: dict[str, int] | None = None) -> LabelledImages:
    """List the images in the class folders of `root`.

    `class_to_index` is the map a checkpoint was trained with: folders are then labelled by name, a folder may be
    missing, and an unknown one is an error. Without it, classes are numbered in sorted order.
    """
    try:
        names = root.folders()
    except OSError as error:
        raise ZooError(f"cannot list {root.where}: {error.strerror}; give a folder that can be read") from error
    if not names:
        raise UsageError(f"{root.where} holds no class folders; put the images into one folder per class")
    if class_to_index is None:
        class_to_index = {name: index for index, name in enumerate(names)}
    unknown = [name for name in names if name not in class_to_index]
    if unknown:
        raise ZooError(
            f"{root.where} holds the class folder '{unknown[0]}', which the checkpoint does not know; "
            f"it was trained on {len(class_to_index)} classes: {', '.join(list(class_to_index)[:10])}"
            f"{' ...' if len(class_to_index) > 10 else ''}"
        )
    files, labels, left_out = [], [], []
    for name in names:
        images, others = members_of(root, name)
        if not images:
            raise ZooError(f"class folder {root.where / name} holds no images; add some or remove the folder")
        files += images
        left_out += others
        labels += [class_to_index[name]] * len(images)
    return LabelledImages(root.source(files), np.asarray(labels, np.int32), class_to_index, tuple(left_out))


def require_classes(images: LabelledImages, wanted: int) -> int:
    """The number of classes to train: what the folders say, checked against a given number (0 = not given)."""
    count = len(images.class_to_index)
    if wanted and wanted != count:
        raise UsageError(
            f"num_classes is {wanted} but {images.where} holds {count} class folders; "
            "give the matching number or leave num_classes out"
        )
    if count < 2:
        raise UsageError(f"{images.where} holds one class folder only; a classifier needs at least two")
    return count
