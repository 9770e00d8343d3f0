"""Class folders as labelled images: classes sorted by name, files sorted within their class. No MindSpore here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from src.engine.data.images import IMAGE_SUFFIXES
from src.engine.data.source import Files, LabelledImages
from src.engine.errors import UsageError, ZooError
from src.engine.io.files import files_below

TRAIN_FOLDERS = ("train",)
EVAL_FOLDERS = ("val", "validation_preprocess")


def find_root(path: str, splits: tuple[str, ...]) -> Path:
    """`path` itself, or its sub-folder named in `splits` when that one holds the class folders."""
    root = Path(path).expanduser()
    for name in splits:
        candidate = root / name
        if candidate.is_dir() and any(entry.is_dir() for entry in candidate.iterdir()):
            return candidate
    return root


def members_of(folder: Path) -> list[str]:
    """Files of a class folder and its sub-folders, relative to the class folder's parent; hidden files are left out."""
    return sorted(str(file.relative_to(folder.parent)) for file in files_below(folder))


def find_images(data_path: str, output_path: str, images_in: Callable[[Path], Path] = Path) -> tuple[Path, list[Path]]:
    """The image `data_path`, or all images in that folder and below it, in a fixed order, and the folder they are in.

    `images_in` is the part of a folder that holds the images. `output_path`, hidden files and other files are left out.
    """
    root, output, suffixes = Path(data_path).expanduser(), Path(output_path).expanduser().resolve(), IMAGE_SUFFIXES
    if root.is_file():
        if not root.name.lower().endswith(suffixes):
            raise UsageError(f"data_path is {root}; an image has to end in {' '.join(suffixes)}")
        return root.parent, [root]
    if not root.is_dir():
        raise UsageError(f"data_path is {root}, which does not exist; give an image or a folder of images")
    root = images_in(root)
    if output == root.resolve():
        raise UsageError(f"infer_output_path is the folder of the images, {root}; choose another one")
    images = [file for file in files_below(root, leave_out=output) if file.name.lower().endswith(suffixes)]
    if not images:
        raise ZooError(f"{root} holds no images ({' '.join(suffixes)}); give a folder that does")
    return root, images


def scan(path: str, splits: tuple[str, ...], class_to_index: dict[str, int] | None = None) -> LabelledImages:
    """List the images below `path`.

    `class_to_index` is the map a checkpoint was trained with: folders are then labelled by name, a folder may be
    missing, and an unknown one is an error. Without it, classes are numbered in sorted order.
    """
    root = find_root(path, splits)
    try:
        names = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise ZooError(f"cannot list {root}: {error.strerror}; give a folder that can be read") from error
    if not names:
        raise UsageError(f"{root} holds no class folders; put the images into one folder per class")
    if class_to_index is None:
        class_to_index = {name: index for index, name in enumerate(names)}
    unknown = [name for name in names if name not in class_to_index]
    if unknown:
        raise ZooError(
            f"{root} holds the class folder '{unknown[0]}', which the checkpoint does not know; "
            f"it was trained on {len(class_to_index)} classes: {', '.join(list(class_to_index)[:10])}"
            f"{' ...' if len(class_to_index) > 10 else ''}"
        )
    files, labels, others = [], [], []
    for name in names:
        members = members_of(root / name)
        images = [file for file in members if file.lower().endswith(IMAGE_SUFFIXES)]
        others += [file for file in members if not file.lower().endswith(IMAGE_SUFFIXES)]
        if not images:
            raise ZooError(f"class folder {root / name} holds no images; add some or remove the folder")
        files += images
        labels += [class_to_index[name]] * len(images)
    return LabelledImages(Files(root, tuple(files)), np.asarray(labels, np.int32), class_to_index, tuple(others))


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
