"""What quantisation does to each tensor of an exported file: range, grid, signal-to-noise ratio; as CSV and plot.

No MindSpore here: signals are those of the file itself, run by onnxruntime without its optimisations.
"""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import onnx
import onnxruntime
from onnx import helper

from src.engine import plots
from src.engine.export.onnx_graph import IMAGE
from src.engine.io import files
from src.quantisation.onnx_graph import UNSIGNED

if TYPE_CHECKING:
    from src.quantisation.onnx_graph import Graph
    from src.quantisation.weights import FoldedOnGrid


class Writer(Protocol):
    """What wrote the file: its graph knows the activations' grids, `folded` are the weights on grids."""

    @property
    def graph(self) -> Graph: ...

    @property
    def folded(self) -> list[FoldedOnGrid]: ...


@dataclass(frozen=True)
class Row:
    """One quantised tensor; `scale_*` are the smallest and largest of its scales, `sqnr_db` is in decibel.

    `least` and `greatest` are the ends of its grid (of a weight: its outermost quantised values), `seen_*` its values
    before quantisation: an activation's on the report's images.
    """

    name: str
    kind: str
    scales: int
    least: float
    greatest: float
    seen_least: float
    seen_greatest: float
    scale_min: float
    scale_max: float
    zero_point: int
    sqnr_db: float


def sqnr_db(signal: float, noise: float) -> float:
    """10 log10 of the ratio of two sums of squares."""
    return float(10 * np.log10(signal / noise)) if signal > 0 and noise > 0 else float("inf")


def measure(model: onnx.ModelProto, writer: Writer, images: np.ndarray) -> list[Row]:
    """A row for every activation and weight, in the order of computation; `images` (N, 3, H, W), used one by one."""
    grids = [grid for grid in writer.graph.grids.values() if not grid.is_again]
    session = with_outputs(model, [name for grid in grids for name in (grid.before, grid.after)])
    batch = session.get_inputs()[0].shape[0]
    repeats = batch if isinstance(batch, int) else 1
    sums = {grid.name: np.array([np.inf, -np.inf, 0.0, 0.0]) for grid in grids}
    for image in images:
        outputs = session.run(None, {IMAGE: np.repeat(image[None], repeats, 0)})[1:]
        values = dict(zip([output.name for output in session.get_outputs()][1:], outputs))
        values[IMAGE] = image
        for grid in grids:
            before, after = values[grid.before].astype(np.float64), values[grid.after]
            before = before.clip(grid.least, grid.greatest)
            least, greatest, signal, noise = sums[grid.name]
            sums[grid.name] = np.array(
                [
                    min(least, before.min()),
                    max(greatest, before.max()),
                    signal + (before**2).sum(),
                    noise + ((before - after) ** 2).sum(),
                ]
            )
    rows = []
    for grid in grids:
        least, greatest, signal, noise = sums[grid.name].tolist()
        scale = float(grid.scale)
        low, high = ((end - UNSIGNED - grid.zero_point) * scale for end in (0, 255))
        ratio, zero_point = sqnr_db(signal, noise), grid.zero_point
        rows.append(Row(grid.name, "activation", 1, low, high, least, greatest, scale, scale, zero_point, ratio))
    return rows + [weight_row(folded) for folded in writer.folded]


def weight_row(folded: FoldedOnGrid) -> Row:
    weight = folded.weight.astype(np.float64)
    ratio = sqnr_db((weight**2).sum(), ((weight - folded.on_grid()) ** 2).sum())
    scale, zero_point = folded.scale, int(folded.zero_point[0])
    low, high = float(scale.min()), float(scale.max())
    on_grid = folded.on_grid()
    ends = (float(on_grid.min()), float(on_grid.max()), float(weight.min()), float(weight.max()))
    return Row(f"{folded.name}.weight", "weight", len(scale), *ends, low, high, zero_point, ratio)


def with_outputs(model: onnx.ModelProto, names: list[str]) -> onnxruntime.InferenceSession:
    """A session that also returns the tensors `names` (the input excepted), with all optimisations off."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for name in dict.fromkeys(names):
        if name != IMAGE:
            copy.graph.output.append(helper.make_empty_tensor_value_info(name))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])


def write(rows: list[Row], path: Path) -> tuple[Path, Path]:
    """The report as `path`.csv and `path`.png."""
    text = io.StringIO()
    table = csv.DictWriter(text, [field.name for field in fields(Row)], lineterminator="\n")
    table.writeheader()
    table.writerows(asdict(row) for row in rows)
    table_path, plot_path = path.with_name(f"{path.name}.csv"), path.with_name(f"{path.name}.png")
    files.write_text(table_path, text.getvalue())
    draw(rows, plot_path)
    return table_path, plot_path


def draw(rows: list[Row], path: Path) -> None:
    """Signal-to-noise ratio, grid and values of every tensor, activations above, weights below, in order."""
    drawing = plots.figure(12, 7)
    axes = drawing.subplots(2, 2, sharex="row")
    for (left, right), kind in zip(axes, ("activation", "weight")):
        chosen = [row for row in rows if row.kind == kind]
        at = np.arange(len(chosen))
        left.plot(at, [row.sqnr_db for row in chosen], marker=".", color="C0" if kind == "activation" else "C1")
        left.set(ylabel=f"{kind}: signal / noise, dB", xlabel="tensor, in order of computation")
        ends = [row.least for row in chosen], [row.greatest for row in chosen]
        seen = [row.seen_least for row in chosen], [row.seen_greatest for row in chosen]
        right.vlines(at, *ends, color="0.8", linewidth=4, label="grid")
        right.vlines(at, *seen, color="C2", label="values")
        right.set(ylabel=f"{kind}: range", xlabel="tensor, in order of computation")
        right.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncol=2, frameon=False)  # beside no bar
        worst = np.argsort([row.sqnr_db for row in chosen])[:3]
        left.plot(worst, [chosen[index].sqnr_db for index in worst], "o", color="C3", fillstyle="none")
        names = [chosen[index].name.replace("backbone.", "") for index in worst]
        left.set_title("lowest: " + ", ".join(names), fontsize=8, loc="left")
    plots.save(drawing, path)
