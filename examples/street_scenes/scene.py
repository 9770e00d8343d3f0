"""A street: what it looks like, what stands where, and the order of painting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from . import things
from .canvas import Canvas, Colour, Layer
from .things import NEAREST, Place, View, front, side

END = 90.0  # metres; the street vanishes there
SIDES = (-1, 1)
SKIES = (  # top, bottom, haze
    ((90, 140, 205), (190, 210, 230), (195, 205, 215)),
    ((150, 160, 175), (200, 205, 210), (195, 198, 202)),
    ((120, 130, 170), (235, 205, 175), (215, 195, 180)),
)
Thing = tuple[float, Callable[[], None]]  # how far away, and how to paint it


@dataclass(frozen=True)
class Street:
    """Measures in metres from the middle of the road; `kinds` says what is beside it on the left and on the right."""

    road: float
    walk: float
    verge: float
    kinds: dict[int, str]

    @property
    def backdrop(self) -> float:
        return self.road + self.walk + self.verge


def sky(place: Place, top: Colour, bottom: Colour) -> None:
    canvas, view = place.canvas, place.view
    end = view.horizon + 4
    clouds = float(place.rng.uniform(0, 0.12))

    def gradient(layer: Layer) -> None:
        mix = np.linspace(0, 1, len(layer.pixels))[:, None, None]
        layer.pixels[:] = np.asarray(top) * (1 - mix) + np.asarray(bottom) * mix

    points = [(-1, -1), (canvas.width, -1), (canvas.width, end), (-1, end)]
    canvas.paint("sky", points, top, 0, (clouds, clouds * 0.7, clouds * 0.3, 0), gradient)


def skyline(place: Place) -> None:
    """Roofs and trees in the distance."""
    canvas, view, rng = place.canvas, place.view, place.rng
    xs = np.linspace(-1, canvas.width, 12)
    if rng.random() < 0.6:
        for left, right in zip(xs[:-1], xs[1:]):
            up = view.horizon - canvas.height * rng.uniform(0.01, 0.09)
            points = [(left, view.horizon + 5), (left, up), (right, up), (right, view.horizon + 5)]
            canvas.paint("building", points, place.pick(((140, 130, 125), (120, 115, 120))), END, (0, 0.03, 0.03, 0.05))
    top = [(x, view.horizon - canvas.height * rng.uniform(0.005, 0.05)) for x in np.linspace(-1, canvas.width, 30)]
    points = [(-1, view.horizon + 5), *top, (canvas.width, view.horizon + 5)]
    canvas.paint("vegetation", points, place.pick(things.LEAVES), END * 0.7, (0.05, 0.1, 0.15, 0.1))


def ground(place: Place, street: Street) -> None:
    """Grass everywhere, the walks and the road on it; markings and slabs belong to what they are on."""
    canvas, view, rng = place.canvas, place.view, place.rng
    grass = place.pick(((105, 135, 60), (140, 140, 75), (120, 110, 75), (85, 125, 60)))
    points = [(-1, view.horizon), (canvas.width, view.horizon), (canvas.width, canvas.height), (-1, canvas.height)]
    canvas.paint("terrain", points, grass, 12, (0.08, 0.08, 0.1, 0.15))
    slab = place.pick(((170, 165, 160), (160, 150, 140), (185, 175, 165), (175, 145, 130)))
    length = rng.uniform(0.8, 1.6)
    for way in SIDES:
        inner, outer = way * street.road, way * (street.road + street.walk)

        def slabs(layer: Layer, inner: float = inner, outer: float = outer) -> None:
            for ahead in np.arange(NEAREST, 25, length):
                layer.line(view.at(inner, 0, ahead), view.at(outer, 0, ahead), 0.5, slab * 0.8)
            middle = (inner + outer) / 2
            layer.line(view.at(middle, 0, NEAREST), view.at(middle, 0, END), 0.5, slab * 0.85)
            layer.fill(strip(view, inner, inner + np.sign(inner) * 0.2, NEAREST, END), slab * 0.7)

        canvas.paint("sidewalk", strip(view, inner, outer, NEAREST, END), slab, 8, (0.05, 0.05, 0.05, 0.06), slabs)
    asphalt = place.pick(((85, 85, 90), (105, 103, 102), (70, 72, 78), (120, 115, 112)))
    start, cross = rng.uniform(0, 5), rng.uniform(7, 25) if rng.random() < 0.35 else 0.0

    def markings(layer: Layer) -> None:
        white = np.array([225, 225, 220])
        for ahead in np.arange(start + NEAREST, END, 6):
            layer.fill(strip(view, -0.08, 0.08, ahead, ahead + 3), white)
        for way in SIDES if rng.random() < 0.6 else ():
            layer.fill(strip(view, way * (street.road - 0.35), way * (street.road - 0.2), NEAREST, END), white)
        for left in np.arange(-street.road + 0.3, street.road, 1.0) if cross else ():
            layer.fill(strip(view, left, left + 0.5, cross, cross + 3), white)

    points = strip(view, -street.road, street.road, NEAREST, END)
    canvas.paint("road", points, asphalt, 8, (0.06, 0.06, 0.05, 0.08), markings)


def strip(view: View, left: float, right: float, near: float, far: float) -> list[tuple[float, float]]:
    """A rectangle on the ground."""
    return [view.at(x, 0, z) for x, z in ((left, near), (right, near), (right, far), (left, far))]


def backdrop(place: Place, street: Street, small: bool) -> list[Thing]:
    """Houses, fences and hedges on both sides, which are behind everything else."""
    rng, listed = place.rng, []
    for way in SIDES:
        across, ahead = way * street.backdrop, rng.uniform(-4, 3)
        while ahead < END * 0.8:
            length = rng.uniform(7, 16)
            far, kind = ahead + length, street.kinds[way]
            kind = rng.choice(["houses", "fence" if small else "hedge", "hedge"]) if rng.random() < 0.2 else kind
            if far < NEAREST + 1:
                pass
            elif kind == "houses":
                height = rng.uniform(6, 17)
                listed.append((ahead, bind(things.building, place, across, ahead, far, height)))
            elif kind == "fence":
                listed.append((ahead + 200, bind(things.tree, place, across + way * rng.uniform(2, 5), max(far, 6))))
                listed.append((ahead, bind(things.fence, place, across, ahead, far)))
            else:
                listed.append((ahead + 200, bind(things.tree, place, across + way * rng.uniform(1, 4), max(far, 6))))
                listed.append((ahead, bind(things.hedge, place, across, ahead, far)))
            ahead = far + (rng.uniform(2, 6) if rng.random() < 0.25 else 0)
    return listed


def bind(function: Callable, *arguments) -> Callable[[], None]:
    return lambda: function(*arguments)


def furniture(place: Place, street: Street, small: bool) -> list[Thing]:
    """Trees along the walks, and posts and bins if `small` things are wanted."""
    rng, listed = place.rng, []
    for way in SIDES:
        for ahead in np.arange(rng.uniform(4.5, 9), 42, rng.uniform(8, 13)) if small else ():
            kind = str(rng.choice(["lamp", "sign", "light", "sign"]))
            listed.append((ahead, bind(things.pole, place, way * (street.road + rng.uniform(0.3, 0.6)), ahead, kind)))
        planted = rng.random() < 0.6
        for ahead in np.arange(rng.uniform(9, 16), 60, rng.uniform(9, 15)) if planted else ():
            across = way * (street.road + street.walk + street.verge * 0.5)
            listed.append((ahead, bind(things.tree, place, across, ahead)))
        if small and rng.random() < 0.3:
            ahead = rng.uniform(6, 15)
            across = way * (street.road + street.walk * 0.8)
            listed.append((ahead, bind(bin_for_waste, place, across, ahead)))
    return listed


def bin_for_waste(place: Place, across: float, ahead: float) -> None:
    box = front(place.view, across - 0.35, across + 0.35, 0, 1.0, ahead)
    place.canvas.paint("dynamic", box, place.pick(((60, 80, 70), (90, 70, 50))), ahead)


def traffic(place: Place, street: Street) -> list[Thing]:
    """Cars that park and drive, at most one bus."""
    rng, listed = place.rng, []
    parking, has_bus = street.road > 4.6, rng.random() < 0.45
    lane = (street.road - 2.1 if parking else street.road) / 2
    for way in SIDES:
        away = way > 0  # traffic drives on the right
        if parking:
            for ahead in np.arange(rng.uniform(5.5, 9), 50, rng.uniform(5.8, 7.5)):
                if rng.random() < 0.55:
                    kerb = way * (street.road - rng.uniform(1.0, 1.2))
                    listed.append((ahead, bind(things.car, place, kerb, ahead, rng.random() < 0.7)))
        ahead = rng.uniform(7, 22)
        while ahead < 60 and rng.random() < 0.7:
            if has_bus and ahead < 35:
                listed.append((ahead, bind(things.bus, place, way * max(lane, 1.4), ahead)))
                has_bus, ahead = False, ahead + 11
            else:
                label = "cargroup" if ahead > 45 else "car"
                listed.append((ahead, bind(things.car, place, way * lane, ahead, away, label)))
            ahead += rng.uniform(8, 25)
    return listed


def people(place: Place, street: Street, small: bool) -> list[Thing]:
    """People on the walks, and sometimes somebody who crosses the road; bicycles and people far away if `small`."""
    rng, listed = place.rng, []
    for _ in range(rng.integers(2, 8)):
        across = rng.choice(SIDES) * (street.road + rng.uniform(0.8, street.walk - 0.2))
        ahead = rng.uniform(4.5, 24 if small else 11)
        listed.append((ahead, bind(things.person, place, across, ahead)))
    if rng.random() < 0.35:
        ahead = rng.uniform(6, 15)
        listed.append((ahead, bind(things.person, place, rng.uniform(-1, 1) * street.road * 0.8, ahead)))
    for _ in range(rng.integers(1, 4) if small else 0):
        across = rng.choice(SIDES) * (street.road + rng.uniform(0.7, street.walk))
        ahead = rng.uniform(4.5, 13)
        listed.append((ahead, bind(things.bicycle, place, across, ahead)))
    return listed


def bonnet(place: Place) -> None:
    """The front of the car that carries the camera."""
    canvas, rng = place.canvas, place.rng
    top, bottom = canvas.height * rng.uniform(0.9, 0.95), canvas.height
    curve = [(x * canvas.width, top + (bottom - top) * 4 * (x - 0.5) ** 2) for x in np.linspace(0.05, 0.95, 15)]
    points = [(-1, bottom), *curve, (canvas.width, bottom)]
    canvas.paint("ego vehicle", points, place.pick(((60, 62, 66), (30, 32, 40))), 0, (0.15, 0.05, 0, 0))


def paint(things_to_paint: list[Thing]) -> None:
    """The furthest first."""
    for _, action in sorted(things_to_paint, key=lambda thing: -thing[0]):
        action()


def draw(rng: np.random.Generator, height: int, width: int, small: bool = True) -> tuple[np.ndarray, dict]:
    """A picture (height, width, 3) uint8 RGB and its annotation.

    Without `small` things there are no posts, signs, lights, fences and bicycles, and nobody is far away.
    """
    top, bottom, haze = SKIES[rng.choice(len(SKIES), p=(0.5, 0.3, 0.2))]
    canvas = Canvas(height, width, rng, haze, clear=float(rng.uniform(70, 250)))
    focal = width * rng.uniform(0.5, 0.72)
    view = View(width * rng.uniform(0.35, 0.65), height * rng.uniform(0.34, 0.48), focal, rng.uniform(1.5, 2.3))
    light = [float(value) for value in rng.permutation([rng.uniform(0.6, 0.85), rng.uniform(0.95, 1.1)])]
    place = Place(canvas, view, rng, *light)
    beside = ["houses", "houses", "fence" if small else "hedge", "hedge"]
    kinds = {way: str(rng.choice(beside)) for way in SIDES}
    verge = float(rng.uniform(1, 3.5)) if rng.random() < 0.7 else 0.3
    street = Street(float(rng.uniform(3.2, 6)), float(rng.uniform(2, 3.5)), verge, kinds)
    sky(place, top, bottom)
    skyline(place)
    ground(place, street)
    paint(backdrop(place, street, small))
    paint([*furniture(place, street, small), *traffic(place, street), *people(place, street, small)])
    if rng.random() < 0.4:
        bonnet(place)
    if rng.random() < 0.3:  # annotations hold what was deleted, too
        box = side(view, 0.0, 0.0, 1.0, 5.0, 9.0)
        canvas.objects.append({"label": "car", "deleted": 1, "polygon": canvas.outline(box)})
    gain = rng.uniform(0.75, 1.12) * (1 + rng.uniform(-0.06, 0.06, 3))
    picture = canvas.finish(gain, float(rng.uniform(1.5, 5)), float(rng.uniform(0, 0.6)))
    return picture, {"imgHeight": height, "imgWidth": width, "objects": canvas.objects}
