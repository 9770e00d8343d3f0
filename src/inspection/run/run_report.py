"""The report of one run, or of several runs of one model side by side, as one HTML file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from src.inspection import page
from src.inspection.page import Raw
from src.inspection.run import classes, curves, masks
from src.inspection.run.curves import Line, chart
from src.inspection.run.run_folder import SCORES, Run, differences, read, require_one_model

SCRIPTS = ("page.js", "run/chart.js", "run/matrix.js")


def report(folders: Sequence[Path], data_path: str) -> str:
    """The page; `data_path` are pictures with labels for the checkpoints, or empty. Raises ZooError."""
    runs = [read(folder) for folder in folders]
    require_one_model(runs)
    runs = with_distinct_names(runs)
    parts = [*overview(runs), page.section("Curves", hint(), curves.charts(runs))]
    if data_path:
        parts += pictures(runs, data_path)
    parts += settings(runs)
    title = f"{runs[0].model}: {', '.join(run.name for run in runs)}"
    return page.document(title, parts, SCRIPTS)


def hint() -> Raw:
    return page.paragraph("Drag across a chart to enlarge a part of it, double-click to see all again.", "note")


def with_distinct_names(runs: Sequence[Run]) -> list[Run]:
    """Runs whose folders have one name are called by their whole paths."""
    names = [run.name for run in runs]
    return [run if names.count(run.name) == 1 else renamed(run) for run in runs]


def renamed(run: Run) -> Run:
    return NamedRun(run.folder, run.config, run.versions, run.rows)


class NamedRun(Run):
    """A run that its path names."""

    @property
    def name(self) -> str:
        return str(self.folder)


def overview(runs: Sequence[Run]) -> Iterator[Raw]:
    """The numbers that matter first, and what differs between the runs."""
    rows = [summary(run) for run in runs]
    cells = [[run.name, *row.values()] for run, row in zip(runs, rows)]
    yield page.section("Overview", page.table(["run", *rows[0]], cells))
    if len(runs) > 1:
        for title, values in told(runs):
            found = [[key, *map(str, row)] for key, row in differences(values)]
            table = page.table(["key", *(run.name for run in runs)], found)
            yield page.section(f"Differences: {title}", table if found else page.paragraph("none"))


def told(runs: Sequence[Run]) -> list[tuple[str, list[dict[str, Any]]]]:
    """What the runs were told, and what they ran with."""
    return [("configuration", [run.config for run in runs]), ("versions", [dict(run.versions) for run in runs])]


def summary(run: Run) -> dict[str, str | int | float]:
    """What a run reached, and how long it took."""
    epochs = run.rows.get("epoch", {})
    scores = dict(run.series("eval", run.score)) if run.score else {}
    best = max(scores, key=lambda epoch: scores[epoch]) if scores else None
    losses, seconds = run.series("epoch", "loss"), [value for _, value in run.series("epoch", "seconds")]
    speeds = sorted(value for _, value in run.series("epoch", "images_per_s"))
    return {
        "epochs": len(epochs),
        f"best {SCORES.get(run.score, 'score')}": scores[best] if best is not None else "",
        "in epoch": int(best) if best is not None else "",
        "last": scores[max(scores)] if scores else "",
        "last loss": losses[-1][1] if losses else "",
        "minutes": round(sum(seconds) / 60, 2) if seconds else "",
        "images/s (median)": round(speeds[len(speeds) // 2], 1) if speeds else "",
    }


def settings(runs: Sequence[Run]) -> Iterator[Raw]:
    """All keys and all versions."""
    for title, values in told(runs):
        keys = dict.fromkeys(key for one in values for key in one)
        rows = [[key, *(str(one.get(key, "")) for one in values)] for key in keys]
        table = page.table(["key", *(run.name for run in runs)], rows, filtered=True)
        yield page.section(title.capitalize(), table, kind="beside")


def pictures(runs: Sequence[Run], data_path: str) -> Iterator[Raw]:
    """What the runs' checkpoints make of pictures: of several runs all classes in one table, then each run."""
    from src.inspection.run import predicting

    told: list[Raw] = []
    per_class: list[dict[str, float]] = []
    for run in runs:
        title = f"{run.name}: " if len(runs) > 1 else ""
        cfg = predicting.settings(run, data_path)
        module = masks if run.model == predicting.SEGMENTATION else classes
        found = predicting.segment(cfg) if module is masks else predicting.classify(cfg)
        per_class.append(dict(zip(found.names, module.score_of_classes(found))))
        told += module.sections(found, title)
        if run.model == predicting.QUANT and cfg.fits_integers:
            told.append(layers(predicting.noise_of_layers(cfg), title))
    if len(runs) > 1:
        yield side_by_side(runs, per_class, "IoU" if runs[0].model == predicting.SEGMENTATION else "recall")
    yield from told


def side_by_side(runs: Sequence[Run], per_class: Sequence[dict[str, float]], measure: str) -> Raw:
    """A table of one measure of every class in every run; nan where a run does not know a class."""
    names = dict.fromkeys(name for one in per_class for name in one)
    rows: list[list[str | float]] = [[name, *(one.get(name, math.nan) for one in per_class)] for name in names]
    table = page.table(["class", *(run.name for run in runs)], rows, filtered=True)
    return page.section(f"Classes side by side: {measure}", table)


def layers(rows: Sequence[Any], title: str) -> Raw:
    """Signal-to-noise ratio of the quantised tensors: as a chart in order of computation, and as a table."""
    header = ["tensor", "kind", "SQNR, dB", "least", "greatest", "seen least", "seen greatest", "scales"]
    table = [
        [row.name, row.kind, float(row.sqnr_db), row.least, row.greatest, row.seen_least, row.seen_greatest, row.scales]
        for row in rows
    ]
    kinds = list(dict.fromkeys(row.kind for row in rows))
    lines = [
        Line(kind, list(enumerate(row.sqnr_db for row in rows if row.kind == kind)), colour)
        for colour, kind in enumerate(kinds)
    ]
    drawing = chart("signal / quantisation noise, dB", "tensor, in order of computation", lines)
    return page.section(f"{title}Noise of quantisation", drawing, page.table(header, table, filtered=True))
