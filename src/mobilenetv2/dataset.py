"""MobileNetV2's data: what happens to an image and its label in training and in evaluation, and the batches of both.

The 310 application repeats the evaluation transform, so MEAN, STD and RESIZE_RATIO are the numbers to compare with.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import cv2
import numpy as np

from src.engine.data import augment, images, stream
from src.engine.data.image_folder import ImageFolder
from src.engine.errors import ZooError
from src.mobilenetv2.config import Config

MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)  # ImageNet, RGB, of grey values 0..255
STD = (0.229 * 255, 0.224 * 255, 0.225 * 255)
RESIZE_RATIO = 256 / 224  # evaluation resizes the shorter side to this multiple of the input, then crops the centre
TABLES = [((np.arange(256) - mean) / std).astype(np.float32) for mean, std in zip(MEAN, STD)]
MAX_ASPECT = 100  # a thinner picture would take gigabytes when its shorter side is enlarged
NO_LABEL = -1  # label of padding and of files that could not be read; evaluation does not count it


def normalise(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 RGB -> (3, H, W) float32 with mean 0 and standard deviation 1 over ImageNet."""
    planes = np.empty((3, *image.shape[:2]), np.float32)
    for channel, plane in enumerate(cv2.split(image)):
        planes[channel] = cv2.LUT(plane, TABLES[channel])
    return planes


def eval_transform(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8 -> (3, height, width) float32: shorter side to 256/224 of the input, centre crop, normalise."""
    longer, shorter = max(image.shape[:2]), min(image.shape[:2])
    if longer > MAX_ASPECT * shorter:
        raise images.BadImage(f"{image.shape[1]}x{image.shape[0]} pixels, one side over {MAX_ASPECT} times the other")
    resized = augment.resize_shorter_side(image, round(max(height, width) * RESIZE_RATIO))
    return normalise(augment.center_crop(resized, (height, width)))


def train_transform(image: np.ndarray, rng: np.random.Generator, cfg: Config) -> np.ndarray:
    """(H, W, 3) uint8 -> (3, height, width) float32: random crop, flip, colour jitter, policy, normalise."""
    size = (cfg.image_height, cfg.image_width)
    image = augment.random_resized_crop(image, rng, size, scale=(cfg.crop_min_scale, 1.0))
    image = augment.horizontal_flip(image, rng, cfg.flip_probability)
    if cfg.color_jitter:
        image = augment.color_jitter(image, rng, cfg.color_jitter, cfg.color_jitter, cfg.color_jitter)
    if cfg.auto_augment == "randaugment":
        image = augment.rand_augment(image, rng)
    elif cfg.auto_augment == "trivialaugment":
        image = augment.trivial_augment(image, rng)
    return normalise(image)


def smooth_one_hot(label: np.ndarray, classes: int, smoothing: float) -> np.ndarray:
    """Labels (N,) -> probabilities (N, K): 1 - smoothing for the label, smoothing / (K - 1) for each other class.

    PyTorch spreads the smoothing over all K classes instead; the original recipe is kept.
    """
    target = np.full((len(label), classes), smoothing / (classes - 1), np.float32)
    target[np.arange(len(label)), label] = 1.0 - smoothing
    return target


def bad_files(folder: ImageFolder, cfg: Config, say: Callable[[str], None]) -> stream.BadFiles:
    """Where files that are no images are named and counted, beginning with those that the listing left out."""
    bad = stream.BadFiles(cfg.on_bad_image, say)
    for file in folder.not_images:
        bad.add(file, "not an image file")
    return bad


def train_batches(
    folder: ImageFolder,
    cfg: Config,
    bad: stream.BadFiles,
    epoch: int,
    first_step: int = 0,
    rank: int = 0,
    ranks: int = 1,
    contents: Callable[[np.ndarray], Iterator] = stream.without_contents,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images (N, 3, H, W) float32 and target probabilities (N, K) float32 of one epoch, from `first_step` on.

    `contents` adds the files' bytes to rows of indices where something else than the file system has them.
    """
    classes = len(folder.class_to_index)

    def sample(item: tuple[int, bytes | None]) -> tuple[np.ndarray, np.ndarray]:
        index, content = item

        def load(i: int) -> np.ndarray:
            return images.decode(content) if i == index and content is not None else images.read(folder.path(i))

        found, image = stream.first_good(load, index, len(folder), bad, folder.files.__getitem__)
        rng = stream.generator(cfg.seed, stream.SAMPLE, epoch, index)
        return train_transform(image, rng, cfg), folder.labels[found]

    order = stream.training_order(len(folder), cfg.batch_size, cfg.seed, epoch, rank, ranks)[first_step:]
    batches = stream.batches(sample, contents(order), cfg.num_workers)
    for step, (image, label) in enumerate(batches, start=first_step):
        target = smooth_one_hot(label, classes, cfg.label_smooth)
        rng = stream.generator(cfg.seed, stream.BATCH, epoch, step * ranks + rank)
        yield mix(image, target, rng, cfg)


def mix(image: np.ndarray, target: np.ndarray, rng: np.random.Generator, cfg: Config) -> tuple[np.ndarray, np.ndarray]:
    """mixup or cutmix, as configured; one of the two by chance where both are on."""
    use_cutmix = cfg.cutmix_alpha > 0 and (cfg.mixup_alpha == 0 or rng.random() < 0.5)
    if use_cutmix:
        return augment.cutmix(image, target, rng, cfg.cutmix_alpha)
    return augment.mixup(image, target, rng, cfg.mixup_alpha) if cfg.mixup_alpha else (image, target)


def eval_batches(
    folder: ImageFolder, cfg: Config, bad: stream.BadFiles, batch_size: int, rank: int = 0, ranks: int = 1
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images (batch_size, 3, H, W) float32 and labels (batch_size,) int32 of every file (of this rank), in order.

    Files that cannot be read and the padding of the last batch have label NO_LABEL, so that every batch has the same
    shape (one compiled graph) and every readable file is counted once.
    """
    size = (cfg.image_height, cfg.image_width)

    def sample(index: int) -> tuple[np.ndarray, np.int32]:
        if index == stream.NO_SAMPLE:
            return np.zeros((3, *size), np.float32), np.int32(NO_LABEL)
        try:
            return eval_transform(images.read(folder.path(index)), *size), folder.labels[index]
        except images.BadImage as error:
            bad.add(folder.files[index], str(error))
            return np.zeros((3, *size), np.float32), np.int32(NO_LABEL)

    order = stream.evaluation_order(len(folder), batch_size, rank, ranks)
    for image, label in stream.batches(sample, order, cfg.num_workers):
        yield pad(image, label, batch_size)


def pad(inputs: np.ndarray, label: np.ndarray, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Fill an incomplete batch with zeros that have label NO_LABEL."""
    missing = batch_size - len(label)
    if not missing:
        return inputs, label
    filling = np.zeros((missing, *inputs.shape[1:]), inputs.dtype)
    return np.concatenate([inputs, filling]), np.concatenate([label, np.full(missing, NO_LABEL, label.dtype)])


def dropout_mask(shape: tuple[int, int], rate: float, seed: int, epoch: int, step: int) -> np.ndarray:
    """(N, C) float32: 0 for a dropped feature, 1 / (1 - rate) for a kept one."""
    kept = stream.generator(seed, stream.DROPOUT, epoch, step).random(shape, np.float32) >= rate
    return kept.astype(np.float32) / np.float32(1.0 - rate)


def example_batch(folder: ImageFolder | None, shape: tuple[int, int, int, int]) -> np.ndarray:
    """Photographs as network input (N, 3, H, W): the first readable ones of `folder`, or scikit-learn's two."""
    if folder is None:
        from sklearn.datasets import load_sample_images

        pictures = load_sample_images().images
    else:
        pictures = []
        for index in range(len(folder)):
            with contextlib.suppress(images.BadImage):
                pictures.append(images.read(folder.path(index)))
            if len(pictures) == shape[0]:
                break
        if not pictures:
            raise ZooError(f"none of the {len(folder)} files in {folder.root} is a usable image; check it")
    batch = [eval_transform(pictures[i % len(pictures)], *shape[2:]) for i in range(shape[0])]
    return np.stack(batch)
