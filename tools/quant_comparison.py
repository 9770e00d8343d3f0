"""Float, simulated and integer networks side by side: accuracy, agreement, file size, latency.

python tools/quant_comparison.py --config_path configs/mobilenetv2_quant/cpu.yaml --dataset_path VAL_DIR \
    --network float FLOAT.ckpt FLOAT.onnx --network trained QUANT.ckpt QUANT.onnx
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from src.engine import environment  # noqa: E402


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


def latencies(files: Sequence[Path], image: np.ndarray, trials: int) -> list[tuple[float, float, float]]:
    """Median, lowest and highest median of ten parts, in ms, of one image per file; the files take turns."""
    from src.engine.data import stream
    from src.engine.export import exporting

    models = [exporting.reload(file, len(stream.usable_cores())) for file in files]
    for predict in models:
        for _ in range(10):
            predict(image)
    parts = [[] for _ in files]
    for _ in range(10):
        for index, predict in enumerate(models):
            times = []
            for _ in range(trials // 10):
                began = time.perf_counter()
                predict(image)
                times.append(1000 * (time.perf_counter() - began))
            parts[index].append(statistics.median(times))
    return [(statistics.median(part), min(part), max(part)) for part in parts]


def compare(networks: Sequence[Network], configuration: list[str], trials: int) -> list[Row]:
    """Score every checkpoint and file on all images of the configured folder."""
    from src import zoo
    from src.cpu_kernels import rewrite
    from src.engine import device, loop
    from src.engine.data import stream
    from src.engine.data.image_folder import EVAL_FOLDERS, scan
    from src.engine.export import exporting
    from src.engine.io import checkpoint
    from src.mobilenetv2 import dataset, pretrained
    from src.mobilenetv2_quant import pretrained as quant_pretrained

    cfg = zoo.configure("eval", [*configuration, "--pretrain_ckpt", str(networks[0].checkpoint)])
    device.setup(cfg.platform)
    folder = scan(cfg.dataset_path, EVAL_FOLDERS, checkpoint.read(cfg.pretrain_ckpt).meta.get("class_to_index"))
    batches = list(dataset.eval_batches(folder, cfg, stream.BadFiles("skip", print), cfg.batch_size))
    truth = np.concatenate([label[label >= 0] for _, label in batches])
    measured = latencies([network.onnx for network in networks], batches[0][0][:1], trials)
    rows = []
    for network, latency in zip(networks, measured):
        stored = quant_pretrained.read_any(str(network.checkpoint))
        if stored.meta.get("model") == quant_pretrained.MODEL:
            net = quant_pretrained.network_of(stored, cfg, cfg.cpu_kernels)
        else:
            net = pretrained.network_of(stored, cfg)
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


def main(argv: list[str]) -> int:
    environment.prepare()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config_path", required=True, help="YAML file of mobilenetv2_quant")
    parser.add_argument("--dataset_path", required=True, help="folder of validation images")
    parser.add_argument("--network", nargs=3, action="append", required=True, metavar=("NAME", "CKPT", "ONNX"))
    parser.add_argument("--trials", type=int, default=200, help="inferences per file (default 200)")
    given = parser.parse_args(argv)
    networks = [Network(name, Path(ckpt), Path(onnx)) for name, ckpt, onnx in given.network]
    configuration = ["--config_path", given.config_path, "--dataset_path", given.dataset_path]
    print(table(compare(networks, configuration, given.trials)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
