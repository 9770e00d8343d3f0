"""A checkpoint and the files exported from it, in every runtime: accuracy, agreement, latency and size in one table.

python tools/compare_backends.py X.ckpt X.onnx [MORE.onnx ...] --platform CPU --dataset_path VAL_DIR
    [--picture FILE.png] [flags of eval.py]

The first file is what the others are compared with: the share of images (SegFormer: of pixels) that get the same
class. A checkpoint runs in MindSpore, an ONNX file in onnxruntime and, where it is installed, in OpenVINO. Latency is
that of the network alone on one image: the median of ten parts in which all take turns, the lowest and the highest.
--picture draws score, latency and size.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from argparse import Namespace, RawDescriptionHelpFormatter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src import zoo
from src.engine import environment, plots
from src.engine.config import Parser, read_yaml
from src.engine.errors import UsageError, reports_errors

if TYPE_CHECKING:
    from src.engine.comparison import Task

FILE_KEY = {"segformer": "eval_ckpt_path"}  # of eval.py, by model; the others have the next
OTHERS_FILE_KEY = "pretrain_ckpt"
NAMES = {"mindspore": "MindSpore", "onnx": "onnxruntime", "openvino": "OpenVINO"}
LEAST_TRIALS = 10
USAGE = "python tools/compare_backends.py FILE [FILE ...] [--trials N] [--picture FILE.png] [flags of eval.py]"


@dataclass(frozen=True)
class Row:
    """A file in one runtime: its score, how many classes are the first row's, latencies in ms, and its size in MB."""

    file: str
    runtime: str
    score: float
    same: str
    milliseconds: tuple[float, float, float]  # median, lowest, highest
    megabytes: float

    def cells(self) -> tuple[str, ...]:
        middle, lowest, highest = self.milliseconds
        latency = f"{middle:.2f} ({lowest:.2f}, {highest:.2f})"
        return self.file, self.runtime, f"{self.score:.4f}", self.same, latency, f"{self.megabytes:.2f}"


def arguments(argv: list[str]) -> tuple[list[Path], Namespace, list[str]]:
    """Files, `trials` and `picture`, and the flags of eval.py; raises UsageError."""
    count = next((place for place, word in enumerate(argv) if word.startswith("-")), len(argv))
    parser = Parser(usage=USAGE, description=__doc__, allow_abbrev=False, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100, help="inferences per file and runtime (default 100)")
    parser.add_argument("--picture", type=Path, help="draw score and latency of each file and runtime into this PNG")

    given, flags = parser.parse_known_args(argv[count:])
    files = [Path(name) for name in argv[:count]]
    if not files:
        raise UsageError("no file is named; give a checkpoint and files exported from it, before the flags")
    for file in files:
        if not file.is_file() or file.suffix not in (".ckpt", ".onnx"):
            raise UsageError(f"{file} is no checkpoint and no exported file; give FILE.ckpt and FILE.onnx that exist")
    if given.trials < LEAST_TRIALS:
        raise UsageError(f"trials is {given.trials}; it has to be at least {LEAST_TRIALS}")
    if given.picture and given.picture.suffix != ".png":
        raise UsageError(f"picture is {given.picture}; it is drawn as PNG, so give FILE.png")
    return files, given, flags


def runs(files: list[Path]) -> list[tuple[Path, str]]:
    """Every file with each of its backends."""
    has_openvino = importlib.util.find_spec("openvino") is not None
    of_onnx = ("onnx", "openvino") if has_openvino else ("onnx",)
    if not has_openvino:
        print("note: OpenVINO is not installed, so it has no rows; pip install openvino adds them")
    return [(file, name) for file in files for name in (("mindspore",) if file.suffix == ".ckpt" else of_onnx)]


def configure(file: Path, backend: str, flags: list[str]) -> Any:
    """The configuration of eval.py for one file and backend."""
    model = zoo.model_of(read_yaml(zoo.config_file(flags)))
    key = FILE_KEY.get(model, OTHERS_FILE_KEY)
    return zoo.configure("eval", [*flags, f"--{key}", str(file), "--eval_backend", backend])


def table(rows: list[tuple[str, ...]]) -> str:
    """A Markdown table, the numbers right-aligned."""
    title, *others = rows
    lines = [title, ("---", "---", *["---:"] * (len(title) - 2)), *others]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def compare(files: list[Path], trials: int, flags: list[str]) -> tuple[Task, list[Row]]:
    """A row for every file and runtime, and what they were compared by."""
    from src.engine import comparison, device

    wanted = runs(files)
    configurations = [configure(file, backend, flags) for file, backend in wanted]
    device.setup(configurations[0].device, configurations[0].device_id)
    recipe = importlib.import_module(f"src.{configurations[0].model}.recipe")
    contenders, tasks = zip(*(recipe.contender(cfg) for cfg in configurations))
    comparison.require_same_classes([file for file, _ in wanted], contenders)
    task = tasks[0]
    results = comparison.compare(contenders, task.samples())
    times = comparison.latencies([each.network for each in contenders], task.example, trials)
    return task, [
        Row(
            file.name, NAMES[backend], result.score, f"{result.same} of {result.counted}", milliseconds,
            file.stat().st_size / 1e6,
        )
        for (file, backend), result, milliseconds in zip(wanted, results, times)
    ]  # fmt: skip


@reports_errors
def main(argv: list[str]) -> int:
    files, given, flags = arguments(argv)
    environment.prepare()
    task, rows = compare(files, given.trials, flags)
    title = ("file", "runtime", task.score, f"same {task.unit}", "ms, batch 1 (lowest, highest)", "MB")
    print(table([title, *(row.cells() for row in rows)]))
    if given.picture:
        dots = [plots.Dot(f"{row.file}, {row.runtime}", row.milliseconds[0], row.score, row.megabytes) for row in rows]
        plots.trade_off(dots, task.score, given.picture)
        print(f"picture in {given.picture}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
