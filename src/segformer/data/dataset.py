"""Images and their masks: pairing, strict reading, and the batches of training and evaluation. No MindSpore here.

Two layouts, recognised by their folders; <split> is train or val:

    leftImg8bit/<split>/<city>/X_leftImg8bit.png    gtFine/<split>/<city>/X_gtFine_labelTrainIds.png    (Cityscapes)
    images/<split>/**/X.jpg (png, bmp, ...)         masks/<split>/**/X.png        (any other; classes in classes.csv)

Nothing is written into the data folder. A configuration is any object with the fields base_size, native_size, crop_size
(height, width), img_norm_mean, img_norm_std, dataset_ignore_image, seed, batch_size, accumulate and
dataset_num_parallel_workers.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image

from src.engine.data import images, stream
from src.engine.data.archive import IndexFolder
from src.engine.data.images import IMAGE_SUFFIXES
from src.engine.data.source import Source
from src.engine.data.tree import Tree, open_tree
from src.engine.errors import UsageError, ZooError
from src.segformer.data import transforms
from src.segformer.data.class_list import COLUMNS, ClassList, parse_class_list, read_class_list
from src.segformer.data.labels import CITYSCAPES
from src.segformer.data.polygons import POLYGONS, TRAIN_IDS

CITY_IMAGES, CITY_MASKS = "leftImg8bit", "gtFine"
IMAGE_END, MASK_START = "_leftImg8bit.png", "_gtFine"
IMAGES, MASKS, CLASS_FILE = "images", "masks", "classes.csv"
MASK_MODES = ("L", "P", "1")  # of Pillow: one value per pixel, grey or index
TRIED = 16  # images whose size is compared with the crop's before training
NAMED = 5  # how many values or files an error names


@dataclass(frozen=True)
class Pairs:
    """Images and their masks in a fixed order, and what the values of the masks mean."""

    images: Source
    masks: Source
    classes: ClassList
    without_mask: tuple[str, ...] = ()  # images that were left out because they have none
    reduces_zero: bool = False  # whether masks hold 0 for what does not count, and class k as k + 1

    def __len__(self) -> int:
        return len(self.images)

    @property
    def where(self) -> Path:
        return self.images.where

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image (H, W, 3) uint8 RGB and mask (H, W) uint8."""
        image = images.decode(self.images.read(index))
        return image, read_mask(self, index, image.shape[:2])


class Sample(NamedTuple):
    """One image of an evaluation: as it is, as the network's input, and its mask at its own size."""

    file: str
    picture: np.ndarray  # (H, W, 3) uint8 RGB
    image: np.ndarray  # (3, h, w) float32
    mask: np.ndarray  # (H, W) uint8


def city_pairs(root: Tree, split: str) -> Iterator[tuple[str, str]]:
    """Each Cityscapes image with the place where its mask belongs."""
    for name in root.below(f"{CITY_IMAGES}/{split}").files():
        if name.lower().endswith(IMAGE_END.lower()):
            mask = name[: -len(IMAGE_END)] + MASK_START + TRAIN_IDS
            yield f"{CITY_IMAGES}/{split}/{name}", f"{CITY_MASKS}/{split}/{mask}"


def generic_pairs(root: Tree, split: str) -> Iterator[tuple[str, str]]:
    """Each image with the place where its mask belongs: same folder, same name up to the suffix."""
    folder, mask_folder = f"{IMAGES}/{split}", f"{MASKS}/{split}"
    masks = (PurePosixPath(name) for name in root.below(mask_folder).files())
    present = {name.with_suffix(""): name for name in masks if name.suffix.lower() == ".png"}
    first: dict[PurePosixPath, str] = {}
    for image in root.below(folder).files():
        if not image.lower().endswith(IMAGE_SUFFIXES):
            continue
        key = PurePosixPath(image).with_suffix("")
        if key in first:
            both = [root.where / folder / name for name in (first[key], image)]
            raise ZooError(f"{both[0]} and {both[1]} would share one mask; rename one of them and its mask")
        first[key] = image
        yield f"{folder}/{image}", f"{mask_folder}/{present.get(key, key.with_name(key.name + '.png'))}"


def layout(root: Tree) -> str:
    for name in (CITY_IMAGES, IMAGES):
        if root.has_folder(name):
            return name
    raise UsageError(
        f"data_path is {root.where}, which holds neither {CITY_IMAGES}/ (Cityscapes) nor {IMAGES}/ and {MASKS}/; "
        "give a folder with one of them"
    )


def classes_of(root: Tree, class_list: str) -> ClassList:
    """The class list that was given, or the one in the data folder, or Cityscapes'."""
    if class_list:
        return read_class_list(Path(class_list).expanduser())
    if root.has_file(CLASS_FILE):
        try:
            return parse_class_list(root.source([CLASS_FILE]).read(0), str(root.where / CLASS_FILE))
        except images.BadImage as error:
            raise UsageError(
                f"cannot read the class list {root.where / CLASS_FILE}: {error}; give a CSV file"
            ) from error
    if layout(root) == CITY_IMAGES:
        return CITYSCAPES
    raise UsageError(
        f"{root.where} has no {CLASS_FILE}; write one with the columns {','.join(COLUMNS)} or give --class_list"
    )


def find_pairs(
    data_path: str,
    split: str,
    class_list: str = "",
    on_missing_label: str = "error",
    indexes: IndexFolder | None = None,
) -> Pairs:
    """List the images of a split with their masks; `on_missing_label` is "error" or "skip".

    `data_path` is a folder or an archive, whose index is kept in `indexes`.
    """
    root = open_tree(data_path, indexes)
    is_city = layout(root) == CITY_IMAGES
    classes = classes_of(root, class_list)
    folder = root.where / (CITY_IMAGES if is_city else IMAGES) / split
    pairs = list((city_pairs if is_city else generic_pairs)(root, split))
    if not pairs:
        what = f"*{IMAGE_END}" if is_city else "image"
        raise ZooError(f"{folder} holds no {what}; put the images of the split '{split}' there")
    kept: list[tuple[str, str]] = []
    lost: list[tuple[str, str]] = []
    for image, mask in pairs:
        (kept if root.has_file(mask) else lost).append((image, mask))
    if lost and (on_missing_label == "error" or not kept):
        raise missing(root, lost, len(pairs))
    return Pairs(
        root.source([image for image, _ in kept]),
        root.source([mask for _, mask in kept]),
        classes,
        tuple(image for image, _ in lost),
    )


def require_filled_crops(pairs: Pairs, cfg: Any) -> None:
    """Refuse a crop that none of the first images can fill, however enlarged: it would train on padding."""
    sizes = first_sizes(pairs)
    most = 1.0 if cfg.native_size else transforms.RATIO[1]
    fitted = [transforms.fitted_size(*size, transforms.box(cfg, size, most)) for size in sizes]
    if sizes and not any(h >= cfg.crop_size[0] and w >= cfg.crop_size[1] for h, w in fitted):
        if cfg.native_size:
            raise UsageError(
                f"crop_size is {list(cfg.crop_size)} and an image has {sizes[0][0]} x {sizes[0][1]} pixels; "
                "give a smaller --crop_size or leave native_size out"
            )
        raise UsageError(
            f"crop_size is {list(cfg.crop_size)} and an image of {sizes[0][0]} x {sizes[0][1]} becomes "
            f"{fitted[0][0]} x {fitted[0][1]} at most (twice base_size {list(cfg.base_size)}, aspect kept); "
            "give a smaller --crop_size or a larger --base_size"
        )


def padding_line(pairs: Pairs, cfg: Any) -> str:
    """What to say where one of the first images, fitted to base_size, does not fill a crop; else empty."""
    padded = {}
    for size in first_sizes(pairs):
        fitted = transforms.fitted_size(*size, transforms.box(cfg, size, 1.0))
        filled = min(fitted[0], cfg.crop_size[0]) * min(fitted[1], cfg.crop_size[1])
        padded[1 - filled / (cfg.crop_size[0] * cfg.crop_size[1])] = (size, fitted)
    share = max(padded, default=0)
    if not share:
        return ""
    (height, width), fitted = padded[share]
    if cfg.native_size:
        return (
            f"warning: crop_size is {list(cfg.crop_size)} and an image has {height} x {width} pixels, "
            f"so {100 * share:.1f} % of such a crop is padding; a smaller --crop_size has less"
        )
    return (
        f"warning: crop_size is {list(cfg.crop_size)} and an image of {height} x {width} fitted to base_size "
        f"{list(cfg.base_size)} is {fitted[0]} x {fitted[1]}, so {100 * share:.1f} % of such a crop is padding; "
        "a smaller --crop_size or a larger --base_size has less"
    )


def first_sizes(pairs: Pairs) -> list[tuple[int, int]]:
    """Height and width of the first images that can be read."""
    sizes = (size_of(pairs.images, index) for index in range(min(TRIED, len(pairs))))
    return [size for size in sizes if size]


def size_of(source: Source, index: int) -> tuple[int, int] | None:
    """Height and width of an image; None where it cannot be read, which decoding it will report."""
    try:
        with Image.open(io.BytesIO(source.read(index))) as image:
            return image.height, image.width
    except (OSError, images.BadImage, Image.DecompressionBombError):
        return None


def missing(root: Tree, lost: list[tuple[str, str]], count: int) -> ZooError:
    """The error that says which images lack a mask and what to do about it."""
    image, mask = lost[0]
    if mask.endswith(TRAIN_IDS) and root.has_file(mask[: -len(TRAIN_IDS)] + POLYGONS):
        remedy = f"its polygons are not converted yet, run: python tools/convert_dataset.py {root.where}"
    else:
        remedy = "add it or use --on_missing_label skip"
    return ZooError(
        f"{len(lost)} of {count} images have no label: {root.where / image} needs {root.where / mask}; {remedy}"
    )


def read_mask(pairs: Pairs, index: int, shape: tuple[int, ...]) -> np.ndarray:
    """Index mask (H, W) uint8. Raises BadImage where the file is broken, ZooError where it is another mask."""
    masks, classes = pairs.masks, pairs.classes
    path = masks.where / masks.name(index)
    try:
        data = masks.read(index)
    except images.BadImage as error:
        raise images.BadImage(f"its label {path} is no readable PNG ({error})") from error
    try:
        images.check_complete(data)
        with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
            mode, size = picture.mode, picture.size[::-1]
            if size == tuple(shape) and mode in MASK_MODES:
                mask = np.asarray(picture).astype(np.uint8, copy=False)
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise images.BadImage(f"its label {path} is no readable PNG ({type(error).__name__})") from error
    except images.BadImage as error:
        raise images.BadImage(f"its label {path} is a {error}") from error
    if mode not in MASK_MODES:
        raise ZooError(f"label {path} has mode {mode}; a mask has to hold one 8-bit class index per pixel")
    if size != tuple(shape):
        raise ZooError(
            f"label {path} has {size[1]}x{size[0]} pixels but its image {shape[1]}x{shape[0]}; give both one size"
        )
    if pairs.reduces_zero:
        mask = reduced(mask, classes.ignore)
    check_values(mask, path, classes)
    return mask


def reduced(mask: np.ndarray, ignore: int) -> np.ndarray:
    """A mask (H, W) uint8 whose 0 and `ignore` are `ignore` now, and whose other values are one less."""
    table = np.roll(np.arange(256, dtype=np.uint8), 1)
    table[[0, ignore]] = ignore
    return table[mask]


def check_values(mask: np.ndarray, path: Path, classes: ClassList) -> None:
    """Raise ZooError where a mask (H, W) uint8 holds what is neither a class nor ignored."""
    there = cv2.calcHist([mask], [0], None, [256], [0, 256])[:, 0] > 0
    wrong = np.flatnonzero(there & ~classes.valid())
    if len(wrong):
        values = ", ".join(str(value) for value in wrong[:NAMED]) + (" ..." if len(wrong) > NAMED else "")
        raise ZooError(
            f"label {path} holds the values {values}; {classes.source} has the classes 0 to {len(classes) - 1} "
            f"and ignores {classes.ignore}"
        )


def train_transform(
    image: np.ndarray, mask: np.ndarray, rng: np.random.Generator, cfg: Any, ignore: int
) -> tuple[np.ndarray, np.ndarray]:
    """Image (3, h, w) float32 and mask (h, w) int32 of crop_size: resize, crop, flip, distort, normalise, pad."""
    if not cfg.native_size:
        image, mask = transforms.random_resize(image, mask, rng, cfg.base_size)
    image, mask = transforms.random_crop(image, mask, rng, cfg.crop_size, ignore)
    image, mask = transforms.random_flip(image, mask, rng)
    image = transforms.photometric_distortion(image, rng)
    planes = transforms.normalise(
        image, cfg.img_norm_mean, cfg.img_norm_std, cfg.crop_size, float(cfg.dataset_ignore_image)
    )
    return planes, transforms.pad_mask(mask, cfg.crop_size, ignore)


def eval_transform(image: np.ndarray, cfg: Any, scale: float | None = 1.0) -> np.ndarray:
    """(H, W, 3) uint8 -> (3, h, w) float32, fitted to `scale` times base_size (of its own size with native_size).

    At its own size where `scale` is None.
    """
    if scale is not None:
        height, width = image.shape[:2]
        box = transforms.box(cfg, (height, width), scale)
        image = transforms.resize_image(image, *transforms.fitted_size(height, width, box))
    return transforms.normalise(image, cfg.img_norm_mean, cfg.img_norm_std)


@dataclass(frozen=True)
class Loader:
    """Reads, transforms and stacks the pairs of one rank."""

    pairs: Pairs
    cfg: Any
    bad: stream.BadFiles
    shard: stream.Shard = stream.ALONE

    @property
    def images_per_step(self) -> int:
        """Of one rank; SegFormer's batch_size is that of all ranks together."""
        return self.cfg.batch_size // self.shard.count * self.cfg.accumulate

    def train_batches(self, epoch: int, first_step: int = 0) -> Iterator[tuple[np.ndarray, ...]]:
        """Images (N, 3, h, w) float32 and masks (N, h, w) int32 of one epoch, from `first_step` on."""
        pairs, cfg = self.pairs, self.cfg

        def sample(index: int) -> tuple[np.ndarray, np.ndarray]:
            _, (image, mask) = stream.first_good(pairs.read, int(index), len(pairs), self.bad, pairs.images.name)
            rng = stream.generator(cfg.seed, stream.SAMPLE, epoch, int(index))
            return train_transform(image, mask, rng, cfg, pairs.classes.ignore)

        order = stream.training_order(stream.shuffled(len(pairs), cfg.seed, epoch), self.images_per_step, self.shard)
        yield from stream.batches(sample, order[first_step:], cfg.dataset_num_parallel_workers)

    def eval_samples(self, scale: float | None = 1.0) -> Iterator[Sample | None]:
        """Every image of this rank in order, one at a time; only a few are prepared in advance.

        None stands for an image that cannot be read, and for the turns of a rank that has one image less than others.
        """
        pairs, shard = self.pairs, self.shard

        def sample(index: int) -> Sample | None:
            if index >= len(pairs):
                return None
            try:
                picture, mask = pairs.read(index)
            except images.BadImage as error:
                self.bad.add(pairs.images.name(index), str(error))
                return None
            return Sample(pairs.images.name(index), picture, eval_transform(picture, self.cfg, scale), mask)

        threads = stream.usable_threads(self.cfg.dataset_num_parallel_workers)
        turns = range(shard.index, -(-len(pairs) // shard.count) * shard.count, shard.count)
        yield from stream.ordered_map(sample, turns, threads, ahead=threads + 1)
