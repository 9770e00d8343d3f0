"""Predicting the classes of images: a line and a row of a table for each, and a contact sheet of the doubtful ones."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
from tqdm import tqdm

from src.classification import targets
from src.classification.classifier import Classifier, Transforms
from src.classification.config import Config
from src.classification.predicting.contact_sheet import THUMBNAIL, ContactSheet, Picture, thumbnail
from src.classification.predicting.scorer import AnyConfig, OpenCheckpoint, Scorer, open_scorer
from src.engine import device, report
from src.engine.data import images, stream
from src.engine.data.image_folder import find_images
from src.engine.data.source import Source
from src.engine.errors import ZooError
from src.engine.io import files

TABLE, SHEET = "predictions.csv", "contact_sheet.png"
UNKNOWN = -1  # class of an image that lies in no folder of a class


@dataclass(frozen=True)
class Prediction:
    """Of one image: all probabilities (K,), the class its folder says it has (UNKNOWN: none), and a small picture."""

    file: str
    probabilities: np.ndarray
    truth: int
    thumbnail: np.ndarray

    def best(self, count: int) -> np.ndarray:
        """The numbers of the likeliest classes, the first one leading where several are equally likely."""
        return np.argsort(-self.probabilities, kind="stable")[:count]


def truth_of(file: str, class_to_index: dict[str, int]) -> int:
    """The class whose name the outermost of the folders has that `file`, a path below the data folder, lies in."""
    found = (class_to_index[name] for name in PurePath(file).parent.parts if name in class_to_index)
    return next(found, UNKNOWN)


@dataclass(frozen=True)
class Predictor:
    """Predicts images with the transforms of evaluation; only a few batches are in memory."""

    source: Source
    scorer: Scorer
    transforms: Transforms
    cfg: Config
    bad: stream.BadFiles

    def predictions(self) -> Iterator[Prediction | None]:
        """Of every image in order; None of one that cannot be read."""
        known = self.scorer.class_to_index or {}
        for index, row, picture in self.scored():
            file = "" if index == stream.NO_SAMPLE else self.source.name(index)
            yield Prediction(file, row, truth_of(file, known), picture) if file else None

    def scored(self) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """(index, probabilities (K,), small picture) of every image in order; NO_SAMPLE for one that cannot be read."""
        batch_size = min(self.scorer.batch_size, len(self.source))
        order = stream.evaluation_order(len(self.source), batch_size)
        for view, small, index in stream.batches(self._sample, order, self.cfg.num_workers):
            padded, _ = targets.pad(view, index, batch_size)
            probabilities = self.scorer.probabilities(padded)[: len(index)]
            if not np.isfinite(probabilities[index != stream.NO_SAMPLE]).all():
                raise ZooError(f"{self.cfg.pretrain_ckpt} gives scores that are no numbers; use another one")
            yield from zip(index.tolist(), probabilities, small)

    def _sample(self, index: int) -> tuple[np.ndarray, np.ndarray, np.int64]:
        """The network's input, a small picture and the index, which is NO_SAMPLE where the file is no image."""
        size = (self.cfg.image_height, self.cfg.image_width)
        try:
            image = images.decode(self.source.read(index))
            return self.transforms.evaluation(image, self.cfg), thumbnail(image), np.int64(index)
        except images.BadImage as error:
            self.bad.add(self.source.name(index), str(error))
            nothing = np.zeros((3, *size), np.float32), np.zeros((THUMBNAIL, THUMBNAIL, 3), np.uint8)
            return (*nothing, np.int64(stream.NO_SAMPLE))


class Results:
    """What is written about predictions: lines on the terminal, rows of a table, and the pictures of the sheet."""

    def __init__(self, class_names: list[str], top_k: int):
        self.names = [report.printable(name) for name in class_names]
        self.count = min(top_k, len(class_names))
        self.sheet = ContactSheet()
        self.known = self.right = 0

    def header(self) -> list[str]:
        pairs = [f"{what}_{place}" for place in range(1, self.count + 1) for what in ("class", "probability")]
        return ["file", "truth", *pairs]

    def add(self, found: Prediction) -> list[str]:
        """Take a prediction in; returns its row of the table."""
        best = found.best(self.count)
        file, predicted = report.printable(found.file), int(best[0])
        is_known = found.truth != UNKNOWN
        truth = self.names[found.truth] if is_known else ""
        self.known += is_known
        self.right += found.truth == predicted
        of_best = float(found.probabilities[predicted])
        confidence = float(found.probabilities[found.truth]) if is_known else of_best
        self.sheet.add(Picture(file, self.names[predicted], of_best, truth, confidence, found.thumbnail))
        likely = [(self.names[index], float(found.probabilities[index])) for index in best]
        tqdm.write(report.prediction_line(file, likely))
        return [file, truth, *(text for name, share in likely for text in (name, f"{share:.6f}"))]


def run(model: Classifier, cfg: AnyConfig, open_checkpoint: OpenCheckpoint) -> int:
    """Predict every image of a folder or an archive, or one image; returns the exit status."""
    output = Path(cfg.infer_output_path).expanduser()
    source = find_images(cfg.images_to_predict, cfg.infer_output_path)
    if cfg.eval_backend == "mindspore":
        device.setup(cfg.platform, cfg.device_id, dtype=cfg.dtype)
    scorer = open_scorer(model, cfg, open_checkpoint)
    if scorer.class_to_index is None:
        print(f"note: {cfg.pretrain_ckpt} does not name its classes, so numbers stand for them")
    predictor = Predictor(source, scorer, model.transforms, cfg, stream.BadFiles(cfg.on_bad_image, tqdm.write))
    results = Results(scorer.class_names, cfg.top_k)
    began = time.perf_counter()
    files.replace_file(output / TABLE, lambda temporary: write_table(temporary, predictor, results))
    results.sheet.save(output / SHEET)
    tell(predictor, results, output, time.perf_counter() - began)
    return 0


def write_table(path: Path, predictor: Predictor, results: Results) -> None:
    """Predict all images; a row for each that can be read. Raises ZooError where none can, so that no file is made."""
    count = len(predictor.source)
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(results.header())
        for prediction in tqdm(predictor.predictions(), total=count, unit="image", leave=False, disable=None):
            if prediction is not None:
                writer.writerow(results.add(prediction))
    if not results.sheet.seen:
        raise ZooError(f"none of the {count} images in {predictor.source.where} can be read; check the data folder")


def tell(predictor: Predictor, results: Results, output: Path, seconds: float) -> None:
    """What was found in all, and where it is."""
    seen = results.sheet.seen
    if results.known:
        print(report.right_line(results.right, results.known))
    if predictor.bad.reasons:
        print(predictor.bad.summary())
    print(f"{seen} of {len(predictor.source)} images, images/s: {seen / max(seconds, 1e-9):.1f}")
    print(f"wrote {output / TABLE} and {output / SHEET}")
