"""Charts that a reader zooms into: lines and points, drawn by chart.js from the numbers. No MindSpore here."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import NamedTuple

from src.inspection.page import Raw, escaped
from src.inspection.run.run_folder import SCORES, Run

MOST_POINTS = 1500  # of a line; more are averaged
Points = Sequence[tuple[float, float]]


class Line(NamedTuple):
    """Points (x, y); `colour` numbers the run, a `faint` line lies behind the others."""

    name: str
    points: Points
    colour: int = 0
    faint: bool = False


def thinned(points: Points) -> list[tuple[float, float]]:
    """Means of as many neighbours as leave MOST_POINTS at most; what is not finite cannot be drawn."""
    good = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    size = -(-len(good) // MOST_POINTS) if good else 1
    parts = [good[start : start + size] for start in range(0, len(good), size)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]


def as_json(value: object) -> Raw:
    """JSON that may stand in a page."""
    return Raw(json.dumps(value).replace("<", "\\u003c"))


def chart(title: str, x: str, lines: Sequence[Line]) -> Raw:
    """One chart; nothing where no line has a point."""
    shown = [
        {
            "name": line.name,
            "colour": line.colour,
            "faint": line.faint,
            "points": [[float(f"{value:.6g}") for value in point] for point in thinned(line.points)],
        }
        for line in lines
    ]
    shown = [line for line in shown if line["points"]]
    if not shown:
        return Raw("")
    data = as_json({"title": title, "x": x, "lines": shown})
    return Raw(
        f'<figure class="chart"><figcaption>{escaped(title)}</figcaption>'
        f'<script type="application/json">{data}</script></figure>\n'
    )


def charts(runs: Sequence[Run]) -> Raw:
    """Loss, score, learning rate and speed of all runs."""

    def lines(kind: str, key: str, what: str = "", faint: bool = False) -> list[Line]:
        many = len(runs) > 1
        return [
            Line(" ".join(filter(None, [run.name if many else "", what])), run.series(kind, key), colour, faint)
            for colour, run in enumerate(runs)
        ]

    score = next((run.score for run in runs if run.score), "")
    found = [
        chart("training loss", "epoch", lines("train", "loss", "step", True) + lines("epoch", "loss", "mean of epoch")),
        chart(f"held-out {SCORES.get(score, '')}", "epoch", lines("eval", score) if score else []),
        chart("learning rate", "epoch", lines("train", "lr")),
        chart("images/s", "epoch", lines("epoch", "images_per_s")),
    ]
    return Raw("".join(found))
