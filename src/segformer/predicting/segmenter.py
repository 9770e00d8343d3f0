"""What segments images: the network of a checkpoint, or an exported file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.cpu_kernels import availability
from src.engine import loop, precision
from src.engine.data import stream
from src.engine.errors import UsageError, ZooError
from src.engine.export import backends
from src.engine.export.exported_model import ExportedModel
from src.engine.io.checkpoint import Checkpoint
from src.segformer import checkpoints, network, on_cpu
from src.segformer.config import Config
from src.segformer.data.class_list import ClassList
from src.segformer.data.dataset import Pairs
from src.segformer.predicting.prediction import Predict


@dataclass(frozen=True)
class Segmenter:
    """A file that predicts; `classes` are those it names, `cfg` is how to predict with it.

    `predictor()` makes images (N, 3, h, w) into logits at their size or a quarter of it.
    """

    path: Path
    classes: ClassList | None
    cfg: Config
    predictor: Callable[[], Predict]

    def require_classes_of(self, pairs: Pairs) -> None:
        """Raise ZooError where the file says that it has learned others than the data have."""
        if self.classes is not None and self.classes.names != pairs.classes.names:
            raise ZooError(
                f"{self.path} was trained on other classes ({', '.join(self.classes.names[:5])}, ...) than "
                f"{pairs.where} has; evaluate on the classes it was trained on"
            )


def open_segmenter(file: str, cfg: Config) -> Segmenter:
    """What `file` holds, a checkpoint or, with another eval_backend, an ONNX file."""
    if cfg.eval_backend != "mindspore":
        return of_exported_file(Path(file).expanduser(), cfg)
    checkpoint = checkpoints.read(file)
    return Segmenter(checkpoint.path, checkpoints.classes_of(checkpoint), cfg, lambda: of_network(checkpoint, cfg))


def of_network(checkpoint: Checkpoint, cfg: Config) -> Predict:
    """Image (N, 3, h, w) -> coarse logits with the network of a checkpoint."""
    is_quantised = checkpoints.QUANTISATION in checkpoint.meta
    library, reason = availability.find_library(cfg.cpu_kernels if is_quantised and cfg.device == "CPU" else "off")
    dtype = "float32" if is_quantised else cfg.dtype
    net = precision.apply(checkpoints.network_of(checkpoint, cfg, library), dtype)
    print(f"loaded {checkpoint.path}")
    if is_quantised:
        print("quantised network: computed with floats on grids of 8 bits" + ("" if library else f"; {reason}"))
    elif cfg.device == "CPU":
        print(on_cpu.accelerate(net, cfg.cpu_kernels))
    return loop.predictor(network.QuarterLogits(net))


def of_exported_file(path: Path, cfg: Config) -> Segmenter:
    """A file for images of any size, or for those of one size, to which smaller ones are padded."""
    model = backends.load(cfg.eval_backend, path, stream.usable_threads(cfg.dataset_num_parallel_workers))
    require_segmentation(model, cfg)
    classes = checkpoints.classes_in(model.meta, path)
    if model.image_size is None:
        return Segmenter(path, classes, cfg, lambda: model.predict)
    require_size(model, model.image_size, cfg)
    exact = dataclasses.replace(cfg, size_divisor=1)  # what is padded is padded to the file's size, once
    return Segmenter(path, classes, exact, lambda: padding_predictor(model))


def require_segmentation(model: ExportedModel, cfg: Config) -> None:
    """Raise where a file gives no logits per pixel, or was made with other classes or colours."""
    made = model.meta.get("model", checkpoints.MODEL)
    if made != checkpoints.MODEL or len(model.input_shape) != 4 or len(model.output_shape) != 4:
        raise ZooError(f"{model.path} holds no {checkpoints.MODEL}: it gives no scores per pixel; export one")
    if model.outputs not in (None, cfg.class_num):
        raise UsageError(
            f"class_num is {cfg.class_num} and {model.path} has {model.outputs} classes; give {model.outputs}"
        )
    for stored, key in (("mean", "img_norm_mean"), ("std", "img_norm_std")):
        before, now = model.meta.get(stored), list(getattr(cfg, key))
        if before is not None and list(before) != now:
            numbers = ",".join(f"{number:g}" for number in before)
            raise UsageError(f"{key} is {now} and {model.path} was exported with {before}; give --{key} {numbers}")


def require_size(model: ExportedModel, size: tuple[int, int], cfg: Config) -> None:
    """Raise where a file for one size cannot predict as it is asked to; say what it does with smaller images."""
    height, width = size
    if model.output_shape[2:] != size:
        raise ZooError(f"{model.path} gives scores of another size than its images'; export it anew")
    if cfg.eval_mode == "slide":
        if cfg.window[0] != size:
            raise UsageError(
                f"the windows are {cfg.window[0][0]} x {cfg.window[0][1]} and {model.path} takes images of "
                f"{height} x {width}; give --slide_crop {height},{width} or export it with --dynamic_size True"
            )
        return
    print(f"note: {model.path} takes images of {height} x {width} alone; smaller ones are padded to that")


def padding_predictor(model: ExportedModel) -> Predict:
    """For a file that takes one size: smaller images are filled up below and right with 0, the mean colour."""
    height, width = model.image_size or (0, 0)

    def predict(images: np.ndarray) -> np.ndarray:
        count, _, rows, columns = images.shape
        if rows > height or columns > width:
            raise ZooError(
                f"{model.path} takes images of {height} x {width}, and one of {rows} x {columns} came (base_size and "
                "multi_scale say which); export it with --dynamic_size True"
            )
        whole = np.zeros((count, 3, height, width), np.float32)
        whole[:, :, :rows, :columns] = images
        return model.predict(whole)[:, :, :rows, :columns]

    return predict
