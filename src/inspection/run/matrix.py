"""The confusion matrix as a page shows it: cells that are clicked, and the pictures behind them. No MindSpore here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from src.engine.report import printable
from src.inspection.page import Picture, Raw, cell, escaped, image_source, join
from src.inspection.run.curves import as_json

MOST_CLASSES = 60  # of a whole matrix; of more the most frequent confusions are listed
MOST_PAIRS = 200
Cells = Mapping[tuple[int, int], Sequence[int]]  # (true, predicted) -> numbers of pictures


def matrix(confusion: np.ndarray, names: Sequence[str], pictures: Sequence[Picture], cells: Cells, unit: str) -> Raw:
    """`confusion` (K, K): row = true class, column = predicted class; `unit` is what it counts."""
    shown = whole(confusion, names, unit) if len(names) <= MOST_CLASSES else most_frequent(confusion, names, unit)
    data = {
        "cells": {f"{row},{column}": list(found) for (row, column), found in cells.items()},
        "pictures": [[image_source(picture.pixels), printable(picture.caption)] for picture in pictures],
    }
    hint = "A click on a cell shows its pictures."
    return Raw(
        f'<div class="matrix">{shown}<script type="application/json">{as_json(data)}</script>'
        f'<div class="pictures"><p>{hint if "data-cell" in shown else ""}</p></div></div>'
    )


def attributes(row: int, column: int, confusion: np.ndarray, names: Sequence[str], unit: str) -> str:
    """What makes an element a cell that can be clicked."""
    told = f"{names[row]} taken for {names[column]}" if row != column else f"{names[row]}, rightly"
    return f'data-cell="{row},{column}" title="{escaped(f"{told}: {confusion[row, column]} {unit}")}"'


def whole(confusion: np.ndarray, names: Sequence[str], unit: str) -> Raw:
    """Rows of true classes; the colour is the share of the row."""
    share = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    head = join(f'<td class="name column"><span>{escaped(name)}</span></td>' for name in names)
    rows = []
    for row, name in enumerate(names):
        cells = [
            f"<td {attributes(row, column, confusion, names, unit)} "
            f'class="{kind_of(row, column, share[row, column])}" style="--share:{share[row, column]:.3f}">'
            f"{cell_text(confusion[row, column], share[row, column], unit)}</td>"
            for column in range(len(names))
        ]
        rows.append(f'<tr><td class="name">{escaped(name)}</td>{join(cells)}</tr>')
    numbers = "" if unit == "pictures" else f"; numbers are percent of the row's {escaped(unit)}"
    return Raw(
        f"<p>Rows are true classes, columns predicted ones{numbers}.</p>"
        '<div class="wide"><table class="confusion"><tbody>'
        f"<tr><td></td>{head}</tr>{join(rows)}</tbody></table></div>"
    )


def kind_of(row: int, column: int, share: float) -> str:
    """Classes of a cell's style; light text on a dark cell."""
    return ("right" if row == column else "wrong") + (" dark" if share > (0.6 if row == column else 0.4) else "")


def cell_text(count: int, share: float, unit: str) -> str:
    """Pictures as a number; pixels, of which there are many, as percent of the row."""
    if not count:
        return ""
    return str(count) if unit == "pictures" else f"{100 * share:.1f}"


def most_frequent(confusion: np.ndarray, names: Sequence[str], unit: str) -> Raw:
    """A list of the most frequent confusions."""
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:MOST_PAIRS]
    pairs = [(int(row), int(column)) for row, column in zip(*np.unravel_index(order, wrong.shape))]
    rows = [
        f"<tr {attributes(row, column, confusion, names, unit)}><td>{escaped(names[row])}</td>"
        f"<td>{escaped(names[column])}</td>{cell(int(wrong[row, column]))}</tr>"
        for row, column in pairs
        if wrong[row, column]
    ]
    if not rows:
        return Raw("<p>No class is taken for another.</p>")
    head = f"<tr><th>true class</th><th>taken for</th><th>{escaped(unit)}</th></tr>"
    return Raw(f'<div class="wide"><table><thead>{head}</thead><tbody>{join(rows)}</tbody></table></div>')
