"""A picture and its polygons: what is painted with a label is recorded as an object of the annotation.

Coordinates are pixels of the finished picture, (x, y), and may be fractions and lie outside. Painting happens at SCALE
times the size, and the finished picture averages it. Colours are (red, green, blue) in 0..255.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

SCALE = 3  # odd, so that a whole coordinate is the centre of a pixel of both sizes
OCTAVES = (4, 12, 36, 110)  # cells across the height, from clouds to gravel
FAR = 4  # points further out than this many pictures are pulled in

Point = tuple[float, float]
Colour = Sequence[float]


def large(points: Sequence[Point]) -> np.ndarray:
    """Points of the finished picture -> (N, 2) int32 pixels of the canvas."""
    return np.round(np.asarray(points, np.float64) * SCALE + SCALE // 2).astype(np.int32)


def noise(rng: np.random.Generator, height: int, width: int, cells: int) -> np.ndarray:
    """(height, width) float32 in -1..1: smooth, about `cells` bumps from top to bottom."""
    rows = min(max(cells, 2), height)
    grid = rng.uniform(-1, 1, (rows + 1, max(2, rows * width // height) + 1)).astype(np.float32)
    return cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)


class Layer:
    """One object while its details are painted; they cannot reach beyond its outline."""

    def __init__(self, pixels: np.ndarray, left: int, top: int):
        self.pixels = pixels  # (h, w, 3) float32
        self.offset = np.array([left, top], np.int32)

    def fill(self, points: Sequence[Point], colour: Colour) -> None:
        cv2.fillPoly(self.pixels, [large(points) - self.offset], tuple(map(float, colour)))

    def disc(self, centre: Point, radius: float, colour: Colour, squeeze: float = 1.0, thickness: float = 0.0) -> None:
        """A disc, or a ring where a thickness is given; `squeeze` is its width over its height."""
        middle = tuple(int(value) for value in large([centre])[0] - self.offset)
        axes = (max(1, round(radius * SCALE * squeeze)), max(1, round(radius * SCALE)))
        width = max(1, round(thickness * SCALE)) if thickness else -1
        cv2.ellipse(self.pixels, middle, axes, 0, 0, 360, tuple(map(float, colour)), width)

    def line(self, start: Point, end: Point, width: float, colour: Colour) -> None:
        first, last = (tuple(int(value) for value in point) for point in large([start, end]) - self.offset)
        cv2.line(self.pixels, first, last, tuple(map(float, colour)), max(1, round(width * SCALE)))


class Canvas:
    """The picture that grows from the far to the near, and the objects painted so far."""

    def __init__(self, height: int, width: int, rng: np.random.Generator, haze: Colour, clear: float):
        """Things fade into `haze`; at `clear` metres, 63 % of the way."""
        self.height, self.width, self.rng = height, width, rng
        self.haze, self.clear = np.asarray(haze, np.float32), clear
        self.pixels = np.zeros((height * SCALE, width * SCALE, 3), np.float32)
        self.textures = [noise(rng, height * SCALE, width * SCALE, cells) for cells in OCTAVES]
        self.objects: list[dict] = []

    def outline(self, points: Sequence[Point]) -> list[list[int]]:
        """Whole pixels, as annotations have them."""
        low, high = np.array([self.width, self.height]) * -FAR, np.array([self.width, self.height]) * FAR
        return np.clip(np.round(points), low, high).astype(int).tolist()

    def texture(self, box: tuple[int, int, int, int], roughness: Sequence[float]) -> np.ndarray:
        """(h, w, 1) factors around 1 for a box of the canvas; `roughness` is the strength of each octave."""
        top, bottom, left, right = box
        factor = np.ones((bottom - top, right - left), np.float32)
        for strength, field in zip(roughness, self.textures):
            if strength:
                y = int(self.rng.integers(field.shape[0] - (bottom - top) + 1))
                x = int(self.rng.integers(field.shape[1] - (right - left) + 1))
                factor += strength * field[y : y + bottom - top, x : x + right - left]
        return factor[..., None]

    def paint(
        self,
        label: str | None,
        points: Sequence[Point],
        colour: Colour,
        distance: float = 0.0,
        roughness: Sequence[float] = (0.05, 0.03, 0.03, 0.03),
        details: Callable[[Layer], None] | None = None,
    ) -> None:
        """Paint a polygon with a texture and details; without a label it belongs to what is below it.

        A fourth value of the colour is its opacity.
        """
        outline = self.outline(points)
        corners = large(outline)
        left, top = np.maximum(corners.min(0), 0)
        right, bottom = np.minimum(corners.max(0) + 1, [self.pixels.shape[1], self.pixels.shape[0]])
        if right - left < SCALE or bottom - top < SCALE:
            return  # outside, or thinner than a pixel
        if label:
            self.objects.append({"label": label, "polygon": outline})
        mask = np.zeros((bottom - top, right - left), np.uint8)
        cv2.fillPoly(mask, [corners - np.array([left, top], np.int32)], 1)
        layer = Layer(np.empty((*mask.shape, 3), np.float32), left, top)
        layer.pixels[:] = colour[:3]
        if details:
            details(layer)
        layer.pixels *= self.texture((top, bottom, left, right), roughness)
        fade = 1 - np.exp(-distance / self.clear)
        shown = layer.pixels * (1 - fade) + self.haze * fade
        region = self.pixels[top:bottom, left:right]
        if len(colour) > 3:
            shown = shown * colour[3] + region * (1 - colour[3])
        cv2.copyTo(shown, mask, region)

    def finish(self, gain: Colour, grain: float, blur: float) -> np.ndarray:
        """(height, width, 3) uint8 RGB: averaged, lit by `gain`, with the lens's blur and the sensor's noise."""
        picture = cv2.resize(np.clip(self.pixels, 0, 255), (self.width, self.height), interpolation=cv2.INTER_AREA)
        picture = cv2.GaussianBlur(picture, (0, 0), blur) if blur > 0.2 else picture
        picture = picture * np.asarray(gain, np.float32) + self.rng.normal(0, grain, picture.shape)
        return np.clip(picture, 0, 255).astype(np.uint8)
