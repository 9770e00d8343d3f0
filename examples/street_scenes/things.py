"""What stands in a street, painted far to near: every function adds one thing at a place given in metres.

Places are (across, up, ahead): across from the road's middle to the right, up from the ground, ahead of the camera.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from .canvas import Canvas, Colour, Layer, Point

NEAREST = 1.2  # metres ahead of the camera at which walls beside it are cut off
GLASS = ((70, 85, 105), (45, 55, 70), (120, 140, 160), (225, 205, 140))
PAINTS = ((170, 30, 30), (30, 50, 120), (210, 210, 215), (35, 35, 40), (120, 125, 130), (40, 90, 60), (190, 150, 40))
CLOTHES = ((180, 40, 50), (40, 70, 160), (230, 200, 60), (60, 130, 80), (220, 220, 220), (120, 60, 130), (230, 120, 40))
SKINS = ((240, 200, 170), (200, 150, 120), (130, 90, 65))
WALLS = ((150, 120, 100), (170, 160, 145), (125, 75, 60), (140, 140, 145), (185, 165, 120), (95, 90, 95))
TROUSERS = ((45, 50, 75), (60, 55, 50), (30, 30, 35))
LEAVES = ((60, 110, 40), (85, 125, 50), (50, 95, 55), (110, 120, 50))


@dataclass(frozen=True)
class View:
    """A camera `eye` metres above the road, looking at the point (centre, horizon) of the picture."""

    centre: float
    horizon: float
    focal: float  # pixels
    eye: float

    def at(self, across: float, up: float, ahead: float) -> Point:
        ahead = max(ahead, NEAREST)
        return self.centre + self.focal * across / ahead, self.horizon + self.focal * (self.eye - up) / ahead

    def pixels(self, metres: float, ahead: float) -> float:
        return self.focal * metres / max(ahead, NEAREST)


@dataclass(frozen=True)
class Place:
    """What every thing needs: the canvas, the camera, random numbers and how bright each side of a thing is."""

    canvas: Canvas
    view: View
    rng: np.random.Generator
    left_light: float  # of sides that face left
    right_light: float

    def pick(self, colours: Sequence[Colour]) -> np.ndarray:
        """One of the colours, a little changed."""
        return np.asarray(colours[self.rng.integers(len(colours))]) + self.rng.normal(0, 8, 3)

    def side_light(self, across: float) -> float:
        """Brightness of the side that faces the road, of a thing at `across`."""
        return self.left_light if across > 0 else self.right_light


def side(view: View, across: float, low: float, high: float, near: float, far: float) -> list[Point]:
    """A rectangle that runs along the road."""
    return [view.at(across, up, ahead) for up, ahead in ((low, near), (high, near), (high, far), (low, far))]


def front(view: View, left: float, right: float, low: float, high: float, ahead: float) -> list[Point]:
    """A rectangle that faces the camera."""
    return [view.at(across, up, ahead) for across, up in ((left, low), (right, low), (right, high), (left, high))]


def building(place: Place, across: float, near: float, far: float, height: float) -> None:
    """A house beside the road: the face towards it with windows and doors, and the gable."""
    view, rng = place.view, place.rng
    colour = place.pick(
        ((150, 120, 100), (170, 160, 145), (125, 75, 60), (140, 140, 145), (185, 165, 120), (95, 90, 95))
    )
    glass, storey, bay = place.pick(GLASS), rng.uniform(2.8, 3.6), rng.uniform(2.2, 4.0)
    share = rng.uniform(0.35, 0.6)
    outer = across + np.sign(across) * 15
    rough = (0.05, 0.04, 0.04, 0.06)

    def gable(layer: Layer) -> None:
        for x in np.arange(1.5, 13, bay):
            for low in np.arange(storey * 1.1, height - storey * 0.6, storey):
                ends = sorted((across + np.sign(across) * x, across + np.sign(across) * (x + bay * share)))
                layer.fill(front(view, *ends, low, low + storey * share, near), glass * 0.9)

    place.canvas.paint("building", front(view, across, outer, 0, height, near), colour * 0.8, near, rough, gable)

    def windows(layer: Layer) -> None:
        for start in np.arange(max(near, NEAREST) + bay * 0.3, far - bay * share, bay):
            for low in np.arange(storey * 1.1, height - storey * 0.6, storey):
                layer.fill(side(view, across, low, low + storey * share, start, start + bay * share), glass)
            if rng.random() < 0.4:
                layer.fill(side(view, across, 0.1, storey * 0.7, start, start + bay * share), glass * 0.6)
        layer.fill(side(view, across, height * 0.97, height, near, far), colour * 0.6)

    lit = colour * place.side_light(across)
    place.canvas.paint("building", side(view, across, 0, height, near, far), lit, (near + far) / 2, rough, windows)


def fence(place: Place, across: float, near: float, far: float) -> None:
    """Bars on two rails; what is seen between the bars counts as fence too."""
    view, colour = place.view, place.pick(((150, 110, 80), (225, 220, 210), (90, 70, 55)))
    height, step = place.rng.uniform(1.1, 1.5), place.rng.uniform(0.22, 0.35)
    dark = colour * 0.45

    def bars(layer: Layer) -> None:
        for start in np.arange(max(near, NEAREST), far, step):
            layer.fill(side(view, across, 0, height, start, start + step * 0.65), colour)
        for low in (0.25, height - 0.3):
            layer.fill(side(view, across, low, low + 0.12, near, far), colour * 0.85)

    place.canvas.paint("fence", side(view, across, 0, height, near, far), dark, near, (0, 0, 0.03, 0.03), bars)


def blob(rng: np.random.Generator, centre: Point, width: float, height: float, corners: int = 18) -> list[Point]:
    """An uneven ellipse."""
    angles = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    radii = rng.uniform(0.8, 1.12, corners)
    xs, ys = centre[0] + width / 2 * radii * np.cos(angles), centre[1] + height / 2 * radii * np.sin(angles)
    return list(zip(xs, ys))


def tree(place: Place, across: float, ahead: float) -> None:
    view, rng = place.view, place.rng
    trunk, crown, wide = rng.uniform(1.8, 2.8), rng.uniform(3, 5), rng.uniform(2.6, 4.2)
    bark = side_bar(view, across, 0, trunk + 1, ahead, 0.3)
    place.canvas.paint("vegetation", bark, place.pick(((85, 65, 50),)), ahead, (0, 0.1, 0.1, 0.1))
    size = view.pixels(wide, ahead), view.pixels(crown, ahead)
    leaves(place, blob(rng, view.at(across, trunk + crown / 2, ahead), *size), ahead)


def leaves(place: Place, outline: list[Point], ahead: float) -> None:
    rough = (0.1, 0.2, 0.25, 0.25) if ahead < 25 else (0.1, 0.15, 0.2, 0.1)
    place.canvas.paint("vegetation", outline, place.pick(LEAVES), ahead, rough)


def hedge(place: Place, across: float, near: float, far: float) -> None:
    view, rng = place.view, place.rng
    height = rng.uniform(0.9, 2.2)
    ahead = np.linspace(max(near, NEAREST), far, 9)
    top = [view.at(across, height * rng.uniform(0.85, 1.1), z) for z in ahead]
    leaves(place, [view.at(across, 0, ahead[0]), *top, view.at(across, 0, far)], near)


def side_bar(view: View, across: float, low: float, high: float, ahead: float, wide: float) -> list[Point]:
    """An upright bar."""
    return front(view, across - wide / 2, across + wide / 2, low, high, ahead)


def pole(place: Place, across: float, ahead: float, kind: str) -> None:
    """A post that carries a "lamp", a "sign" or a "light"; or nothing."""
    view, rng = place.view, place.rng
    height = rng.uniform(5, 6.5) if kind == "lamp" else rng.uniform(2.8, 3.6)
    colour = place.pick(((120, 125, 130), (85, 90, 90), (150, 150, 145)))
    wide = rng.uniform(0.2, 0.28)
    place.canvas.paint("pole", side_bar(view, across, 0, height, ahead, wide), colour, ahead, (0, 0.05, 0.05, 0.03))
    if kind == "lamp":
        reach = -np.sign(across) * 1.6
        arm = front(view, across, across + reach, height - 0.2, height, ahead)
        place.canvas.paint("pole", arm, colour, ahead, (0, 0, 0.03, 0.03))
    elif kind == "sign":
        sign(place, view.at(across, height, ahead), view.pixels(rng.uniform(0.42, 0.55), ahead), ahead)
    elif kind == "light":
        traffic_light(place, across, height, ahead)


def sign(place: Place, centre: Point, radius: float, ahead: float) -> None:
    """A round, three-cornered or square plate."""
    rng = place.rng
    corners = int(rng.choice([3, 4, 16]))
    turn = -np.pi / 2 if corners != 4 else np.pi / 4
    angles = turn + np.linspace(0, 2 * np.pi, corners, endpoint=False)
    plate = [(centre[0] + radius * np.cos(a), centre[1] + radius * np.sin(a)) for a in angles]
    edge, inside = {3: ((200, 30, 40), (245, 245, 240)), 4: ((30, 80, 180), (60, 110, 210))}.get(
        corners, ((205, 25, 35), (240, 240, 240)) if rng.random() < 0.6 else ((30, 80, 190), (40, 100, 210))
    )

    def picture(layer: Layer) -> None:
        inner = [(centre[0] + (x - centre[0]) * 0.68, centre[1] + (y - centre[1]) * 0.68) for x, y in plate]
        layer.fill(inner, inside)
        bar = radius * 0.12
        layer.line((centre[0], centre[1] - radius * 0.3), (centre[0], centre[1] + radius * 0.3), bar, (30, 30, 40))

    place.canvas.paint("traffic sign", plate, edge, ahead, (0, 0, 0.02, 0.02), picture)


def traffic_light(place: Place, across: float, height: float, ahead: float) -> None:
    view, lit = place.view, int(place.rng.integers(3))
    colours = ((255, 50, 40), (255, 200, 60), (60, 240, 130))

    def lamps(layer: Layer) -> None:
        for index, colour in enumerate(colours):
            centre = view.at(across, height + 0.75 - index * 0.5, ahead)
            shown = colour if index == lit else (70, 60, 50)
            layer.disc(centre, view.pixels(0.2, ahead), shown)

    case = side_bar(view, across, height - 0.55, height + 1.1, ahead, 0.62)
    place.canvas.paint("traffic light", case, (35, 38, 35), ahead, (0, 0, 0.02, 0.02), lamps)


def shadow(place: Place, left: float, right: float, near: float, far: float) -> None:
    """Darkness on the ground under a thing; it belongs to the ground."""
    ground = [place.view.at(x, 0, z) for x, z in ((left, near), (right, near), (right, far), (left, far))]
    hull = cv2.convexHull(np.float32(ground))[:, 0].tolist()
    place.canvas.paint(None, hull, (25, 25, 30, 0.6), near, (0, 0, 0, 0))


def hull_of(view: View, boxes: Sequence[tuple[float, ...]]) -> list[Point]:
    """Silhouette of boxes (left, right, low, high, near, far)."""
    corners = [
        view.at(across, up, ahead)
        for left, right, low, high, near, far in boxes
        for across in (left, right)
        for up in (low, high)
        for ahead in (near, far)
    ]
    return cv2.convexHull(np.float32(corners))[:, 0].tolist()


def car(place: Place, across: float, ahead: float, away: bool, label: str = "car") -> None:
    """A car seen from behind (`away`) or from the front."""
    view, rng = place.view, place.rng
    wide, high, long = rng.uniform(1.7, 2.0), rng.uniform(1.4, 1.75), rng.uniform(3.8, 4.6)
    left, right, far = across - wide / 2, across + wide / 2, ahead + long
    paint = place.pick(PAINTS)
    cabin = (left + 0.15, right - 0.15, 0.9, high, ahead + long * 0.15, ahead + long * 0.75)
    flank = left if across > 0 else right  # the side that is seen
    lit = paint * place.side_light(across)
    shadow(place, left - 0.15, right + 0.15, ahead - 0.2, far)

    def details(layer: Layer) -> None:
        layer.fill(side(view, flank, 0.25, 0.95, ahead, far), lit)
        layer.fill(hull_of(view, [cabin]), paint * 1.1)
        inner = cabin[0] if across > 0 else cabin[1]
        layer.fill(side(view, inner, 1.0, high - 0.12, cabin[4] + 0.25, cabin[5] - 0.2), (45, 55, 65))
        for z in (ahead + long * 0.2, far - long * 0.2):
            layer.disc(view.at(flank, 0.33, z), view.pixels(0.33, z), (20, 20, 22), squeeze=0.45)
        layer.fill(front(view, left, right, 0.25, 0.95, ahead), paint)
        layer.fill(front(view, cabin[0] + 0.1, cabin[1] - 0.1, 1.0, high - 0.1, cabin[4]), (55, 68, 80))
        lamp = (190, 25, 25) if away else (250, 245, 220)
        for x in (left + 0.05, right - 0.4):
            layer.fill(front(view, x, x + 0.35, 0.65, 0.85, ahead), lamp)
        layer.fill(front(view, left, right, 0.12, 0.33, ahead), (35, 35, 38))
        layer.fill(front(view, across - 0.26, across + 0.26, 0.4, 0.52, ahead), (235, 235, 225))

    boxes = [(left, right, 0.0, 0.95, ahead, far), cabin]
    place.canvas.paint(label, hull_of(view, boxes), paint * 0.8, ahead, (0.02, 0.03, 0.02, 0.02), details)
    if ahead < 10:
        plate = front(view, across - 0.26, across + 0.26, 0.4, 0.52, ahead)
        place.canvas.paint("license plate", plate, (235, 235, 225), ahead, (0, 0, 0, 0))


def bus(place: Place, across: float, ahead: float) -> None:
    view, rng = place.view, place.rng
    wide, high, long = 2.5, rng.uniform(2.9, 3.3), rng.uniform(8, 11)
    left, right, far = across - wide / 2, across + wide / 2, ahead + long
    paint = place.pick(((215, 190, 30), (190, 40, 35), (40, 120, 170)))
    flank = left if across > 0 else right
    shadow(place, left - 0.2, right + 0.2, ahead - 0.2, far)

    def details(layer: Layer) -> None:
        layer.fill(side(view, flank, 0.2, high, ahead, far), paint * place.side_light(across))
        for start in np.arange(ahead + 0.4, far - 1.2, 1.5):
            layer.fill(side(view, flank, 1.5, high - 0.5, start, start + 1.3), (45, 55, 70))
        for z in (ahead + 1.8, far - 2.0):
            layer.disc(view.at(flank, 0.5, z), view.pixels(0.5, z), (20, 20, 22), squeeze=0.4)
        layer.fill(front(view, left, right, 0.2, high, ahead), paint * 0.95)
        layer.fill(front(view, left + 0.2, right - 0.2, 1.3, high - 0.6, ahead), (50, 62, 78))
        layer.fill(front(view, left + 0.6, right - 0.6, high - 0.45, high - 0.15, ahead), (250, 170, 40))
        layer.fill(front(view, left, right, 0.1, 0.4, ahead), (35, 35, 38))

    outline = hull_of(view, [(left, right, 0.0, high, ahead, far)])
    place.canvas.paint("bus", outline, paint, ahead, (0.02, 0.03, 0.02, 0.02), details)


def person(place: Place, across: float, ahead: float) -> None:
    """Head, body and two legs in one outline."""
    view, rng = place.view, place.rng
    tall, stride = rng.uniform(1.5, 1.9), rng.uniform(0.1, 0.3)
    shirt, trousers, skin = (
        place.pick(CLOTHES),
        place.pick(((45, 50, 75), (60, 55, 50), (30, 30, 35))),
        place.pick(SKINS),
    )
    shadow(place, across - 0.35, across + 0.35, ahead - 0.15, ahead + 0.3)

    def at(x: float, y: float) -> Point:
        return view.at(across + x, y * tall, ahead)

    half = [(0.0, 1.0), (0.09, 0.98), (0.12, 0.92), (0.09, 0.85), (0.24, 0.81), (0.3, 0.5), (0.2, 0.46)]
    legs = [(stride + 0.1, 0.0), (stride - 0.07, 0.0), (0.0, 0.36), (-stride + 0.07, 0.0), (-stride - 0.1, 0.0)]
    outline = [*half, *legs, *[(-x, y) for x, y in reversed(half[1:])]]

    def clothes(layer: Layer) -> None:
        layer.fill([at(x, y) for x, y in ((-0.6, 0.47), (0.6, 0.47), (0.6, 0.0), (-0.6, 0.0))], trousers)
        layer.fill([at(x, y) for x, y in ((-0.6, 1.1), (0.6, 1.1), (0.6, 0.84), (-0.6, 0.84))], skin)
        layer.fill([at(x, y) for x, y in ((-0.6, 1.1), (0.6, 1.1), (0.6, 0.96), (-0.6, 0.96))], (60, 45, 35))
        for x in (-0.19, 0.19):
            layer.line(at(x, 0.78), at(x * 1.1, 0.5), view.pixels(0.04, ahead), shirt * 0.7)

    place.canvas.paint("person", [at(*p) for p in outline], shirt, ahead, (0, 0.05, 0.05, 0.05), clothes)


def bicycle(place: Place, across: float, ahead: float) -> None:
    """A parked bicycle from the side; its wheels count as full discs."""
    view, rng = place.view, place.rng
    colour, r, half = place.pick(CLOTHES), 0.36, 0.55
    turn = rng.choice([-1, 1])

    def at(x: float, y: float) -> Point:
        return view.at(across + turn * x, y, ahead)

    def ring(x: float, low: float, high: float) -> list[Point]:
        return [at(x + r * np.cos(a), r + r * np.sin(a)) for a in np.linspace(low, high, 10)]

    back, forward = ring(-half, 1.5 * np.pi, 0.6 * np.pi), ring(half, 0.4 * np.pi, -0.5 * np.pi)
    outline = [*back, at(-0.3, 0.95), at(-0.1, 0.98), at(0.25, 0.85), at(0.3, 1.05), at(0.45, 1.05), *forward]
    wide = view.pixels(0.06, ahead)

    def frame(layer: Layer) -> None:
        for x in (-half, half):
            layer.disc(at(x, r), view.pixels(r - 0.03, ahead), (25, 25, 28), thickness=wide)
        for start, end in (
            ((-half, r), (-0.2, 0.8)),
            ((-half, r), (0.0, 0.33)),
            ((-0.2, 0.8), (0.0, 0.33)),
            ((-0.2, 0.75), (0.33, 0.85)),
            ((0.0, 0.33), (0.35, 0.8)),
            ((half, r), (0.36, 1.0)),
        ):
            layer.line(at(*start), at(*end), wide, colour)
        layer.line(at(-0.3, 0.95), at(-0.1, 0.95), wide * 1.3, (30, 30, 30))

    shadow(place, across - 0.9, across + 0.9, ahead - 0.1, ahead + 0.3)
    grey = np.array([105, 100, 100])
    place.canvas.paint("bicycle", outline, grey, ahead, (0, 0, 0.05, 0.1), frame)
