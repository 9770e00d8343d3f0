"""Pictures of a run, drawn with matplotlib without a display. No MindSpore here."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from src.engine.io import files

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure(width: float, height: float) -> Figure:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot.figure(figsize=(width, height), layout="constrained")


def save(drawing: Figure, path: Path) -> None:
    files.replace_file(path, lambda temporary: drawing.savefig(temporary, dpi=120, bbox_inches="tight"))


def save_few_colours(drawing: Figure, path: Path, colours: int) -> None:
    """As a PNG of at most 256 colours, which takes about a third of the bytes."""
    from PIL import Image

    drawn = io.BytesIO()
    drawing.savefig(drawn, dpi=120)
    reduced = Image.open(drawn).convert("RGB").quantize(colours)
    files.replace_file(path, lambda temporary: reduced.save(temporary, "PNG", optimize=True))


def history(metrics: Path) -> dict[str, dict[int, dict]]:
    """The lines of metrics.jsonl by kind ("train", "epoch", "eval") and by step or epoch."""
    by_kind: dict[str, dict[int, dict]] = {}
    for line in metrics.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        by_kind.setdefault(row["kind"], {})[row["at"]] = row  # a resumed run repeats steps; the last one counts
    return by_kind


def curves(metrics: Path, path: Path, score: str = "top1", called: str = "top-1") -> None:
    """Loss per step and epoch, learning rate, and the held-out `score` where it was measured, from metrics.jsonl."""
    by_kind = history(metrics)
    train, evaluations = by_kind.get("train", {}), by_kind.get("eval", {})
    steps = sorted(train)
    epochs = sorted(by_kind.get("epoch", {}))
    per_epoch = steps[-1] / epochs[-1] if epochs else 1
    drawing = figure(9, 3.4)
    left, right = drawing.subplots(1, 2)
    left.plot(np.array(steps) / per_epoch, [train[s]["loss"] for s in steps], color="0.75", linewidth=0.8, label="step")
    left.plot(epochs, [by_kind["epoch"][e]["loss"] for e in epochs], color="C0", marker=".", label="epoch mean")
    left.set(xlabel="epoch", ylabel="training loss")
    left.legend(frameon=False)
    right.plot(np.array(steps) / per_epoch, [train[s]["lr"] for s in steps], color="C1")
    right.set(xlabel="epoch", ylabel="learning rate (orange)", ylim=(0, None))
    if evaluations:
        other = right.twinx()
        at = sorted(evaluations)
        other.plot(at, [evaluations[e][score] for e in at], color="C2", marker=".")
        other.set(ylabel=f"held-out {called} (green)", ylim=(0, 1))
    save(drawing, path)


class Dot(NamedTuple):
    """A file in one runtime: what the network takes for one image, in ms, its score, and the file's size in MB."""

    name: str
    milliseconds: float
    score: float
    megabytes: float


def trade_off(dots: list[Dot], score: str, path: Path) -> None:
    """Score over latency; the area of a dot is the size of its file."""
    drawing = figure(8, 1.5 + 0.45 * max(len(dots), 4))
    axes = drawing.subplots()
    largest = max(dot.megabytes for dot in dots)
    for number, dot in enumerate(dots):
        label = f"{dot.name}: {dot.score:.4f}, {dot.milliseconds:.2f} ms, {dot.megabytes:.2f} MB"
        area = 400 * dot.megabytes / largest
        axes.scatter(dot.milliseconds, dot.score, area, f"C{number % 10}", alpha=0.7)
        axes.plot([], [], "o", color=f"C{number % 10}", label=label)  # in the legend all have one size
    axes.set(xlabel="ms for one image", ylabel=score, xlim=(0, 1.1 * max(dot.milliseconds for dot in dots)))
    axes.margins(y=0.3)
    drawing.legend(loc="outside lower center", frameon=False, fontsize="small")
    save(drawing, path)


def confusion_matrix(confusion: np.ndarray, names: list[str], path: Path) -> None:
    """Rows are true classes, columns predicted ones, colour the share of the row; numbers for up to 30 classes."""
    share = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    side = min(14.0, 3.0 + 0.35 * len(names))
    drawing = figure(side + 1, side)
    axes = drawing.subplots()
    shown = axes.imshow(share, vmin=0, vmax=1, cmap="Blues")
    axes.set(xlabel="predicted", ylabel="true")
    if len(names) <= 60:
        labels = [name.replace("$", r"\$") for name in names]  # matplotlib would read formulas
        axes.set_xticks(range(len(names)), labels, rotation=90)
        axes.set_yticks(range(len(names)), labels)
    if len(names) <= 30:
        for row, column in np.argwhere(confusion):
            colour = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, confusion[row, column], ha="center", va="center", color=colour, fontsize=8)
    drawing.colorbar(shown, ax=axes, shrink=0.8, label="share of the true class")
    save(drawing, path)
