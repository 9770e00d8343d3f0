"""Stored measurements as tables and as a picture."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.results import Results
from benchmarks.rows import Contender, Row
from src.engine import plots

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def summary(row: Row, results: Results) -> list[dict]:
    """One entry per contender: median, lowest and highest of its rounds, and the ratio to the row's best peer.

    A ratio above 1 is better than the peer: faster, or less memory. Where there is no number, `median` is None and
    `reason` says why.
    """
    entries = [entry_of(contender, row, results) for contender in row.contenders]
    peers = [entry["median"] for entry in entries if entry["peer"] and entry["median"] is not None]
    more = row.metric.more_is_better
    best = (max if more else min)(peers, default=None)
    for entry in entries:
        median = entry["median"]
        known = best is not None and median is not None
        entry["ratio"] = (median / best if more else best / median) if known else None
        entry["is_best_peer"] = entry["peer"] and best is not None and median == best
    return entries


def entry_of(contender: Contender, row: Row, results: Results) -> dict:
    values = results.values(contender.key, row.metric.field)
    return {
        "label": contender.label,
        "peer": contender.peer,
        "versions": results.versions(contender.key, contender.packages),
        "rounds": len(values),
        "median": statistics.median(values) if values else None,
        "lowest": min(values, default=None),
        "highest": max(values, default=None),
        "reason": "" if values else results.reason(contender.key) or "not measured",
    }


def table(row: Row, results: Results) -> str:
    """Markdown whose columns are aligned, and under it why there are gaps."""
    lines = [[f"{row.title}, {row.metric.unit}", "version", "median", "lowest", "highest", "rounds", "x best peer"]]
    entries = summary(row, results)
    for entry in entries:
        numbers = [entry[name] for name in ("median", "lowest", "highest")]
        texts = ["-" if number is None else format(number, row.metric.number) for number in numbers]
        texts[0] = entry["reason"].split(":")[0] if entry["median"] is None else texts[0]
        ratio = "-" if entry["ratio"] is None else f"{entry['ratio']:.2f}"
        lines.append([entry["label"], entry["versions"] or "-", *texts, str(entry["rounds"]), ratio])
    widths = [max(map(len, column)) for column in zip(*lines)]
    lines.insert(1, ["-" * widths[0], "-" * widths[1], *("-" * (width - 1) + ":" for width in widths[2:])])
    text = [
        " | ".join([*(cell.ljust(width) for cell, width in zip(line[:2], widths)), *right(line[2:], widths[2:])])
        for line in lines
    ]
    notes = [f"- {entry['label']}: {entry['reason']}" for entry in entries if ":" in entry["reason"]]
    return "\n".join([*(f"| {line} |" for line in text), *(["", *notes] if notes else [])])


def right(cells: list[str], widths: list[int]) -> list[str]:
    return [cell.rjust(width) for cell, width in zip(cells, widths)]


def document(rows: dict[str, Row], results: Results, about: list[str]) -> str:
    """All tables under what they were measured on."""
    tables = [f"## {name}\n\n{table(row, results)}" for name, row in rows.items()]
    return "\n\n".join(["# Speed on CPU", "\n".join(f"- {line}" for line in about), *tables]) + "\n"


def bars(rows: dict[str, Row], results: Results) -> list[tuple[str, float | None, str]]:
    """For the picture: the row, the ratio of our first contender that ran to the best peer, and a sentence about it."""
    found = []
    for name, row in rows.items():
        entries = summary(row, results)
        best = next((entry["label"] for entry in entries if entry["is_best_peer"]), None)
        ours = [entry for entry in entries if not entry["peer"]]
        ran = next((entry for entry in ours if entry["ratio"] is not None), None)
        if best is not None and ran is None:
            found.append((name, None, ours[0]["reason"].split(":")[0]))
        elif best is not None:
            other = "" if ran is ours[0] else f" ({ran['label']})"
            found.append((name, ran["ratio"], f"{ran['ratio']:.2f} x {best}{other}"))
    return found


def picture(path: Path, rows: dict[str, Row], results: Results, about: str) -> bool:
    """The ratios as bars; the line at 1 is the best peer of each row. False where there is no ratio to draw."""
    found = bars(rows, results)
    if not any(ratio for _, ratio, _ in found):
        return False
    drawing = plots.figure(8, 1.2 + 0.24 * len(found))
    axes = drawing.subplots()
    draw_bars(axes, found)
    axes.set(title=about)
    plots.save_few_colours(drawing, path, 32)
    return True


def draw_bars(axes: Axes, found: list[tuple[str, float | None, str]]) -> None:
    """What `bars` found, from top to bottom."""
    ratios = [ratio or 0 for _, ratio, _ in found]
    axes.barh(range(len(found)), ratios, color=["C0" if ratio >= 1 else "C1" for ratio in ratios])
    for at, (_, ratio, text) in enumerate(found):
        axes.text((ratio or 0) + 0.03, at, text, va="center", fontsize=7, bbox={"color": "white", "pad": 0.5})
    axes.axvline(1, color="black", linewidth=0.8, zorder=0)
    axes.set(yticks=range(len(found)), yticklabels=[name for name, _, _ in found], xlim=(0, 1.5 * max(1, *ratios)))
    axes.set(xlabel="ours, times the best peer of the row (above 1: faster, or less memory)")
    axes.invert_yaxis()
