"""Answers of benchmarks.cpu as rows, as tables and as a picture."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path

from benchmarks.cpu_plan import SECTIONS, Row
from src.engine import plots
from src.engine.io import files


def rows(section: str, contenders: list[Row], answers_of: Callable[[Row], list[dict]]) -> list[dict]:
    """One row per contender that was measured: median, range, and the ratio to its group's best peer.

    A ratio above 1 is better than the peer: faster, or less memory.
    """
    about, found = SECTIONS[section], []
    for row in contenders:
        values = [answer[about.field] for answer in answers_of(row)]
        if values:
            range_of = {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}
            kind = {"section": section, "label": row.label, "group": row.group, "peer": row.peer}
            found.append({**kind, "values": values, **range_of})
    for row in found:
        peers = [other["median"] for other in found if other["peer"] and other["group"] == row["group"]]
        best = (max if about.more_is_better else min)(peers, default=None)
        row["ratio"] = best and (row["median"] / best if about.more_is_better else best / row["median"])
    return found


def table(section: str, found: list[dict]) -> str:
    """Markdown whose columns are aligned."""
    about = SECTIONS[section]
    lines = [[about.title, "median", "lowest", "highest", "x best PyTorch"]]
    for row in found:
        numbers = [format(row[name], about.number) for name in ("median", "lowest", "highest")]
        lines.append([row["label"], *numbers, f"{row['ratio']:.2f}" if row["ratio"] else "-"])
    widths = [max(map(len, column)) for column in zip(*lines)]
    lines.insert(1, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    aligned = ([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:]))] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in aligned)


def write(folder: Path, content: dict) -> None:
    """cpu.json, cpu.md and cpu.png."""
    files.write_text(folder / "cpu.json", json.dumps(content, indent=2) + "\n")
    measured = dict.fromkeys(row["section"] for row in content["results"])
    tables = [table(name, [r for r in content["results"] if r["section"] == name]) for name in measured]
    about = [f"- {name}: {value}" for name, value in content["machine"].items()]
    notes = [f"- {note}" for note in content["notes"]]
    text = "\n\n".join(["# Speed on CPU", "\n".join([*about, *notes]), *tables])
    files.write_text(folder / "cpu.md", text + "\n")
    picture(folder / "cpu.png", content["results"])


def picture(path: Path, results: list[dict]) -> None:
    """The ratios as bars, one block per section; the line at 1 is the best variant of PyTorch."""
    shown = [row for row in results if row["ratio"]]
    if not shown:
        return
    drawing = plots.figure(9, 1.2 + 0.24 * len(shown))
    axes = drawing.subplots()
    labels = [f"{row['section']}: {row['label']}" for row in shown]
    axes.barh(
        range(len(shown)), [row["ratio"] for row in shown], color=["0.7" if row["peer"] else "C0" for row in shown]
    )
    axes.set(yticks=range(len(shown)), yticklabels=labels, xlabel="times the best variant of PyTorch (more is better)")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.invert_yaxis()
    plots.save(drawing, path)
