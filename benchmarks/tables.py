"""Numbers of all rounds as rows, and rows as Markdown that also reads well in a terminal."""

from __future__ import annotations

import statistics

from benchmarks.contenders import REFERENCES, SECTIONS, rows_of


def rows(section: str, answers: dict[str, list[dict]]) -> list[dict]:
    """One row per contender that was measured: the values of all rounds, their median and range, and the ratio."""
    field = SECTIONS[section].field
    values = {name: [answer[field] for answer in found] for name, found in answers.items()}
    found = []
    for contender in rows_of(section):
        if contender.worker not in values:
            continue
        mine, reference = values[contender.worker], values.get(contender.reference)
        median = statistics.median(mine)
        found.append(
            {
                "section": section,
                "contender": contender.worker,
                "label": contender.label,
                "values": mine,
                "median": median,
                "lowest": min(mine),
                "highest": max(mine),
                "reference": contender.reference if reference else None,
                "ratio": median / statistics.median(reference) if reference else None,
            }
        )
    return found


def markdown(settings: dict[str, int], notes: list[str], results: list[dict]) -> str:
    """Settings, notes and one table per section."""
    rounds = f"{settings['rounds']} round{'s' if settings['rounds'] > 1 else ''}"
    about = (
        f"Batch {settings['batch']} (unless a row says otherwise), {settings['size']} x {settings['size']} pixels, "
        f"float32; median, lowest and highest of {rounds}."
    )
    parts = [about, *(["\n".join(f"- {note}" for note in notes)] if notes else [])]
    for section in SECTIONS:
        members = [row for row in results if row["section"] == section]
        if members:
            parts.append(table(section, members))
    return "\n\n".join(parts) + "\n"


def table(section: str, members: list[dict]) -> str:
    """Aligned columns; the last one is the ratio to the row that the heading names."""
    number = SECTIONS[section].number
    against = REFERENCES.get(section, "PyTorch channels-last")
    lines = [[SECTIONS[section].title, "median", "lowest", "highest", f"x {against}"]]
    for row in members:
        measured = [format(row[name], number) for name in ("median", "lowest", "highest")]
        lines.append([row["label"], *measured, "-" if row["ratio"] is None else f"{row['ratio']:.2f}"])
    widths = [max(map(len, column)) for column in zip(*lines)]
    lines.insert(1, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    aligned = (
        [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:]))] for line in lines
    )
    return "\n".join(f"| {' | '.join(line)} |" for line in aligned)
