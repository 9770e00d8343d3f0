"""The strip of pictures in README, drawn from what the quick starts and the benchmark wrote.

bash scripts/quickstart.sh; bash scripts/quickstart.sh segformer; bash scripts/benchmark.sh   (what it is drawn from)
python -m benchmarks.pictures [--out docs/images/strip.png] [--results build/benchmark/results.jsonl]

The chart of speeds is left out where nothing has been measured.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import tables
from benchmarks.cpu import OUT
from benchmarks.processes import ROOT
from benchmarks.results import SAME, Results, read
from benchmarks.rows import ROWS
from src.engine import plots
from src.engine.config import Parser
from src.engine.errors import UsageError, reports_errors

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DIGITS, STREETS = Path("quickstart"), Path("quickstart_segformer")
PICTURES, METRICS = STREETS / "grid.png", "run/metrics.jsonl"
TITLES = ("image", "truth", "prediction of SegFormer-B0")
SCENE = 1  # of those in the grid
CHART = {  # rows of the benchmark, and how the chart calls them
    "train-32-64": "training, 32 x 32",
    "train-64-64": "training, 64 x 64",
    "train": "training, 224 x 224",
    "train-bf16": "in bfloat16",
    "finetune": "a new head",
    "eval": "evaluation",
    "quant": "training in 8 bits",
    "segformer": "SegFormer training",
    "segformer-b2": "SegFormer-B2 training",
    "segformer-infer": "SegFormer inference",
}
COLOURS = 128


def needed(folder: Path, name: str, command: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise UsageError(f"{path} is missing; it has to be there to be drawn; run {command} first")
    return path


def scene(grid: Path) -> list:
    """Image, truth and prediction of one scene, cut out of the quick start's picture of several."""
    from PIL import Image

    picture = Image.open(grid)
    width = picture.width // len(TITLES)
    height = width // 2  # scenes are drawn twice as wide as high
    top = picture.height % height + SCENE * height  # below the titles
    return [picture.crop((width * at, top, width * (at + 1), top + height)) for at in range(len(TITLES))]


def draw_run(axes: Axes, metrics: Path, score: str, title: str) -> None:
    """The mean loss of every epoch and, on an axis of its own, the held-out score."""
    found = plots.history(metrics)
    axes.plot(list(found["epoch"]), [row["loss"] for row in found["epoch"].values()], color="C0", marker=".")
    axes.set(title=title, xlabel="epoch", ylim=(0, None))
    axes.set_ylabel("training loss", color="C0")
    other = axes.twinx()
    other.plot(list(found["eval"]), [row[score] for row in found["eval"].values()], color="C2", marker=".")
    other.set(ylim=(0, 1.02))
    other.set_ylabel(f"held-out {'mIoU' if score == 'miou' else 'top-1'}", color="C2")


def speeds(file: Path) -> list[tuple[str, float | None, str]]:
    """The bars of the chart, of the rows that were measured."""
    lines = read(file)
    if not lines:
        return []
    results = Results(file, {name: lines[0][name] for name in SAME})
    found = tables.bars({name: ROWS[name] for name in CHART}, results)
    return [(CHART[name], ratio, text) for name, ratio, text in found if ratio]


def draw(folder: Path, results: Path, out: Path) -> None:
    """The strip: a scene above, curves and speeds below."""
    grid = needed(folder, str(PICTURES), "bash scripts/quickstart.sh segformer")
    streets = needed(folder, str(STREETS / METRICS), "bash scripts/quickstart.sh segformer")
    digits = needed(folder, str(DIGITS / METRICS), "bash scripts/quickstart.sh")
    found = speeds(results)
    drawing = plots.figure(12, 5)
    above, below = drawing.subfigures(2, 1)
    for axes, picture, title in zip(above.subplots(1, 3), scene(grid), TITLES):
        axes.imshow(picture)
        axes.set_axis_off()
        axes.set_title(title)
    cells = below.subplots(1, 3 if found else 2)
    draw_run(cells[0], digits, "top1", "MobileNetV2, handwritten digits")
    draw_run(cells[1], streets, "miou", "SegFormer-B0, drawn streets")
    if found:
        tables.draw_bars(cells[2], found)
        cells[2].set(title="speed on CPU", xlabel="times the best peer")
    plots.save_few_colours(drawing, out, COLOURS)


@reports_errors
def main(argv: list[str]) -> int:
    flags = Parser(prog="python -m benchmarks.pictures", description=__doc__.split("\n")[0])
    flags.add_argument("--out", type=Path, default=ROOT / "docs" / "images" / "strip.png", metavar="FILE.png")
    flags.add_argument("--results", type=Path, default=OUT / "results.jsonl", metavar="FILE", help="of the benchmark")
    flags.add_argument("--folder", type=Path, default=ROOT, metavar="FOLDER", help="where the quick starts lie")
    options = flags.parse_args(argv)
    draw(options.folder, options.results, options.out)
    print(f"written: {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
