"""A contact sheet: small pictures in rows, each with its prediction, the doubtful ones first. No MindSpore here."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from src.engine.io import files

THUMBNAIL = 112  # pixels, height and width
COLUMNS, ROWS = 8, 5
LINE, MARGIN, FRAME, FONT_SIZE = 17, 8, 3, 13  # pixels
NUMBER = 36  # pixels that a probability takes in a line
WHITE, BLACK, GREY = (255, 255, 255), (0, 0, 0), (150, 150, 150)
RIGHT, WRONG = (0, 130, 60), (200, 0, 30)
MORE = "..."


@dataclass(frozen=True)
class Picture:
    """A prediction as it is shown; `truth` is "" where it is not known, `confidence` belongs to it, or to `predicted`.

    `thumbnail` (THUMBNAIL, THUMBNAIL, 3) uint8 RGB.
    """

    file: str
    predicted: str
    probability: float
    truth: str
    confidence: float
    thumbnail: np.ndarray

    @property
    def is_wrong(self) -> bool:
        return self.truth not in ("", self.predicted)

    @property
    def colour(self) -> tuple[int, int, int]:
        return GREY if not self.truth else WRONG if self.is_wrong else RIGHT


class ContactSheet:
    """Keeps the most doubtful pictures of any number: wrong ones first, then those with the least confidence."""

    def __init__(self, most: int = COLUMNS * ROWS):
        self.seen = 0
        self._most = most
        self._kept: list[tuple[bool, float, int, Picture]] = []  # a heap, the least doubtful first

    def add(self, picture: Picture) -> None:
        self.seen += 1
        heapq.heappush(self._kept, (picture.is_wrong, -picture.confidence, -self.seen, picture))
        if len(self._kept) > self._most:
            heapq.heappop(self._kept)

    def pictures(self) -> list[Picture]:
        return [picture for *_, picture in sorted(self._kept, key=lambda kept: kept[:3], reverse=True)]

    def save(self, path: Path) -> None:
        """Write the sheet as PNG, smaller than OpenCV would."""
        files.replace_file(path, self.draw().save)

    def draw(self) -> Image.Image:
        pictures = self.pictures()
        cell = THUMBNAIL + 2 * (MARGIN + FRAME), THUMBNAIL + 2 * FRAME + 3 * LINE + 2 * MARGIN  # width, height
        rows = -(-len(pictures) // COLUMNS)
        sheet = Image.new("RGB", (COLUMNS * cell[0], LINE + 2 * MARGIN + rows * cell[1]), WHITE)
        drawer, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT_SIZE)
        drawer.text((MARGIN, MARGIN), self._title(pictures), fill=BLACK, font=font)
        for place, picture in enumerate(pictures):
            left = place % COLUMNS * cell[0] + MARGIN
            top = LINE + 2 * MARGIN + place // COLUMNS * cell[1]
            side = THUMBNAIL + 2 * FRAME
            drawer.rectangle((left, top, left + side - 1, top + side - 1), fill=picture.colour)
            sheet.paste(Image.fromarray(picture.thumbnail), (left + FRAME, top + FRAME))
            predicted = shortened(picture.predicted, font.getlength, side - NUMBER)
            truth = f"is {picture.truth}" if picture.truth else ""
            lines = (
                (f"{predicted} {picture.probability:.2f}", picture.colour if truth else BLACK),
                (shortened(truth, font.getlength, side), BLACK),
                (shortened(picture.file, font.getlength, side, from_end=True), GREY),
            )
            texts = [(text, colour) for text, colour in lines if text]
            for number, (text, colour) in enumerate(texts):
                drawer.text((left, top + side + number * LINE), text, fill=colour, font=font)
        return sheet

    def _title(self, pictures: Sequence[Picture]) -> str:
        wrong = sum(picture.is_wrong for picture in pictures)
        known = any(picture.truth for picture in pictures)
        order = f"{wrong} wrong (red) first, then the least certain" if known else "the least certain first"
        return f"{len(pictures)} of {self.seen} pictures: {order}"


def thumbnail(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> (THUMBNAIL, THUMBNAIL, 3): the whole picture, made to fit, on white."""
    factor = THUMBNAIL / max(image.shape[:2])
    height, width = (max(1, round(side * factor)) for side in image.shape[:2])
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_NEAREST
    found = np.full((THUMBNAIL, THUMBNAIL, 3), 255, np.uint8)
    top, left = (THUMBNAIL - height) // 2, (THUMBNAIL - width) // 2
    found[top : top + height, left : left + width] = cv2.resize(image, (width, height), interpolation=method)
    return found


def shortened(text: str, length: Callable[[str], float], width: float, from_end: bool = False) -> str:
    """`text`, or dots and as much of its beginning, or of its end, as is no longer than `width` pixels with them."""
    if length(text) <= width:
        return text
    kept = text
    while kept and length(kept + MORE) > width:
        kept = kept[1:] if from_end else kept[:-1]
    return MORE + kept if from_end else kept + MORE
