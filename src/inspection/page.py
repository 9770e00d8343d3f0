"""One HTML file that needs no network and no server: text, sortable tables and pictures. No MindSpore here."""

from __future__ import annotations

import base64
import functools
import html
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Union

import cv2
import numpy as np

from src.engine.report import printable

HERE = Path(__file__).resolve().parent
# The browser itself is told to fetch nothing.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
JPEG_QUALITY = 80
SMALL = 96  # pixels, the longer side of a thumbnail


class Raw(str):
    """Text that is HTML already."""


Cell = Union[str, int, float, Raw]


class Picture(NamedTuple):
    """A picture (H, W, 3) uint8 RGB, or (H, W) grey, and what stands below it."""

    pixels: np.ndarray
    caption: str


def escaped(text: object) -> Raw:
    return text if isinstance(text, Raw) else Raw(html.escape(printable(str(text))))


def join(parts: Iterable[str]) -> Raw:
    return Raw("".join(parts))


def thumbnail(pixels: np.ndarray, longest: int = SMALL) -> np.ndarray:
    """The picture with a longer side of at most `longest` pixels; small ones are enlarged by a whole factor."""
    height, width = pixels.shape[:2]
    if max(height, width) <= longest:
        factor = max(1, longest // max(height, width))
        return np.repeat(np.repeat(pixels, factor, 0), factor, 1)
    scale = longest / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def image_source(pixels: np.ndarray) -> str:
    """A picture as the address that holds it."""
    shown = pixels if pixels.ndim == 2 else pixels[..., ::-1]
    data = cv2.imencode(".jpg", shown, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()


def figure(picture: Picture) -> Raw:
    caption = escaped(picture.caption)
    return Raw(
        f'<figure><img src="{image_source(picture.pixels)}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'
    )


def gallery(pictures: Iterable[Picture]) -> Raw:
    return Raw(f'<div class="gallery">{join(figure(picture) for picture in pictures)}</div>')


def table(header: Sequence[str], rows: Iterable[Sequence[Cell]], filtered: bool = False) -> Raw:
    """A table that a click on a heading sorts; `filtered` puts a field above it that hides rows."""
    head = join(f"<th>{escaped(name)}</th>" for name in header)
    body = join(f"<tr>{join(cell(value) for value in row)}</tr>\n" for row in rows)
    field = '<input class="filter" type="search" placeholder="show only rows with ...">' if filtered else ""
    return Raw(f'<div class="wide">{field}<table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>')


def cell(value: Cell) -> Raw:
    """A number is sorted by its value, whatever digits are shown."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        digits = ".4g" if abs(value) < 1e4 else ".0f"
        shown = format(value, digits) if isinstance(value, float) else str(value)
        shown = "-" if value != value else shown  # nan: there is nothing to measure
        return Raw(f'<td class="number" data-value="{value!r}">{shown}</td>')
    return Raw(f"<td>{escaped(value)}</td>")


def section(title: str, *parts: str, kind: str = "") -> Raw:
    return Raw(f'<section class="{kind}"><h2>{escaped(title)}</h2>\n{join(parts)}\n</section>\n')


def paragraph(text: str, kind: str = "") -> Raw:
    return Raw(f'<p class="{kind}">{escaped(text)}</p>')


@functools.lru_cache
def part(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def document(title: str, sections: Iterable[str], scripts: Sequence[str] = ("page.js",)) -> str:
    """The whole file."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f'<meta name="viewport" content="width=device-width">\n<title>{escaped(title)}</title>\n'
        f"<style>\n{part('page.css')}</style></head>\n<body>\n<h1>{escaped(title)}</h1>\n{join(sections)}"
        f"<script>\n{join(part(name) for name in scripts)}</script>\n</body></html>\n"
    )
