"""Float, simulated and integer networks side by side: accuracy, agreement, file size, latency.

python tools/quant_comparison.py --config_path configs/mobilenetv2_quant/cpu.yaml --dataset_path VAL_DIR \
    --network float FLOAT.ckpt FLOAT.onnx --network trained QUANT.ckpt QUANT.onnx
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from src.engine import environment
from src.engine.comparison import PARTS, latencies
from src.engine.config import Parser
from src.engine.errors import UsageError, reports_errors


class Network(NamedTuple):
    """A checkpoint and the ONNX file made of it."""

    name: str
    checkpoint: Path
    onnx: Path


class Row(NamedTuple):
    """One line of the table; `agree` is how often checkpoint and file have the same top-1, latencies are in ms."""

    name: str
    checkpoint_top1: float
    onnx_top1: float
    agree: int
    samples: int
    megabytes: float
    latency: float
    lowest: float
    highest: float


def answers(
    predict: Callable[[np.ndarray], np.ndarray], batches: Sequence[tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
    """Top-1 classes of all samples that have a label."""
    return np.concatenate([predict(image).argmax(1)[label >= 0] for image, label in batches])


def compare(networks: Sequence[Network], configuration: list[str], trials: int) -> list[Row]:
    """Score every checkpoint and file on all images of the configured folder."""
    from src import zoo
    from src.classification import checkpoints
    from src.classification.dataset import Loader
    from src.cpu_kernels import rewrite
    from src.engine import device, loop
    from src.engine.data import stream
    from src.engine.data.image_folder import EVAL_FOLDERS, scan
    from src.engine.export import exporting
    from src.engine.io import checkpoint
    from src.mobilenetv2.classifier import MOBILENETV2
    from src.mobilenetv2_quant import checkpoints as quant_checkpoints

    cfg = zoo.configure("eval", [*configuration, "--pretrain_ckpt", str(networks[0].checkpoint)])
    device.setup(cfg.platform)
    data = scan(cfg.dataset_path, EVAL_FOLDERS, checkpoint.read(cfg.pretrain_ckpt).meta.get("class_to_index"))
    loader = Loader(data, MOBILENETV2.transforms, cfg, stream.BadFiles("skip", print))
    batches = list(loader.eval_batches(cfg.batch_size))
    truth = np.concatenate([label[label >= 0] for _, label in batches])
    every_core = len(stream.usable_cores())
    measured = latencies([exporting.reload(each.onnx, every_core) for each in networks], batches[0][0][:1], trials)
    rows = []
    for network, latency in zip(networks, measured):
        stored = quant_checkpoints.read_any(str(network.checkpoint))
        if stored.meta.get("model") == quant_checkpoints.MODEL:
            net = quant_checkpoints.network_of(stored, cfg, cfg.cpu_kernels)
        else:
            net = checkpoints.network_of(MOBILENETV2, stored, cfg)
            print(rewrite.accelerate(net, cfg.cpu_kernels))
        simulated = answers(loop.predictor(net), batches)
        real = answers(exporting.reload(network.onnx, stream.usable_threads(cfg.num_workers)), batches)
        scores = (simulated == truth).mean(), (real == truth).mean(), int((simulated == real).sum())
        rows.append(Row(network.name, *scores, len(truth), network.onnx.stat().st_size / 1e6, *latency))
    return rows


def table(rows: Sequence[Row]) -> str:
    """A Markdown table; sizes and latencies also relative to the first row."""
    lines = [
        "| network | top-1, checkpoint | top-1, ONNX | same top-1 | ONNX file | latency, batch 1 (lowest, highest) |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    first = rows[0]
    for row in rows:
        size = f"{row.megabytes:.2f} MB ({row.megabytes / first.megabytes:.2f})"
        latency = f"{row.latency:.2f} ms ({row.latency / first.latency:.2f}) ({row.lowest:.2f}, {row.highest:.2f})"
        lines.append(
            f"| {row.name} | {row.checkpoint_top1:.4f} | {row.onnx_top1:.4f} | {row.agree} of {row.samples} "
            f"| {size} | {latency} |"
        )
    return "\n".join(lines)


def tell_shortfalls(rows: Sequence[Row], least: float) -> int:
    """One sentence for each file whose top-1 is less than it has to be; returns the exit status."""
    low = [row for row in rows if row.onnx_top1 < least]
    for row in low:
        print(f"error: {row.name}: top-1 of the ONNX file is {row.onnx_top1:.4f}, less than {least:g}", file=sys.stderr)
    return 1 if low else 0


def arguments(argv: list[str]) -> argparse.Namespace:
    """Parse and check the command line; raises UsageError."""
    parser = Parser(prog="python tools/quant_comparison.py", description=__doc__)
    parser.add_argument("--config_path", required=True, help="YAML file of mobilenetv2_quant")
    parser.add_argument("--dataset_path", required=True, help="folder of validation images")
    parser.add_argument("--network", nargs=3, action="append", required=True, metavar=("NAME", "CKPT", "ONNX"))
    parser.add_argument("--trials", type=int, default=200, help="inferences per file (default 200)")
    parser.add_argument("--least_top1", type=float, default=0.0, help="status 1 if an ONNX file scores less")
    given = parser.parse_args(argv)
    if given.trials < PARTS:
        raise UsageError(f"trials is {given.trials}; it has to be at least {PARTS}")
    if not 0 <= given.least_top1 <= 1:
        raise UsageError(f"least_top1 is {given.least_top1:g}; it is a share, from 0 to 1")
    given.network = [Network(name, Path(ckpt), Path(onnx)) for name, ckpt, onnx in given.network]
    for file in (file for network in given.network for file in network[1:]):
        if not file.is_file():
            raise UsageError(f"--network names {file}, which is not a file; give a checkpoint and the ONNX file of it")
    return given


@reports_errors
def main(argv: list[str]) -> int:
    given = arguments(argv)
    environment.prepare()
    configuration = ["--config_path", given.config_path, "--dataset_path", given.dataset_path]
    rows = compare(given.network, configuration, given.trials)
    print(table(rows))
    return tell_shortfalls(rows, given.least_top1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
