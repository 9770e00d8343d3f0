"""Whether one rank's data keep a card busy: python -m benchmarks.host [--rounds 5] [--batch 256] [--device_ms 224].

The engine's own loop trains on a stand-in for a card: every step takes a fixed time, one after the other, and reading a
loss waits for the end of its step. Its data go through the real stream and transforms: from decoded images in memory,
and from JPEG files of 500 x 375 pixels. With a card of 0 ms only the host is left, and that tells how many cores a card
needs. CPU time per image is the number that other programs on the machine disturb least.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks import photos
from src.classification import targets
from src.classification.dataset import Loader
from src.engine import environment
from src.engine.config import Parser, build, read_yaml
from src.engine.data import images, stream
from src.engine.data.image_folder import scan
from src.engine.data.source import LabelledImages
from src.mobilenetv2.config import Config
from src.mobilenetv2.dataset import TRANSFORMS

environment.prepare()

from src.engine import loop  # noqa: E402
from src.engine.io.journal import Journal  # noqa: E402
from src.engine.steps.step import TrainStep  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
WARM_UP = 5  # steps that are not counted: batches of before the first step lie ready for them
Batches = Callable[[int, int], Iterator[tuple[np.ndarray, ...]]]


class Loss:
    """The result of a step that ends at a moment of `time.perf_counter`."""

    def __init__(self, end: float):
        self._end = end

    def asnumpy(self) -> np.ndarray:
        time.sleep(max(0.0, self._end - time.perf_counter()))
        return np.float32(1.0)


class Card:
    """A device whose steps take `seconds` each; `began` are the moments at which they did."""

    def __init__(self, seconds: float):
        self.seconds, self.began = seconds, []
        self._free = 0.0

    def step(self, rate: float, *inputs: object) -> Loss:
        self.began.append(max(time.perf_counter(), self._free))
        self._free = self.began[-1] + self.seconds
        return Loss(self._free)


class Measured(NamedTuple):
    """One round of one row."""

    step_ms: float  # mean from the beginning of a step to that of the next
    cpu_ms: float  # of this process per image


class Row(NamedTuple):
    """What is measured: which data, on how many cores, with a card of how many milliseconds a step."""

    data: str
    cores: int
    device_ms: float


def in_memory(data: LabelledImages, cfg: Config) -> Batches:
    """Batches as the loader makes them, of images that are decoded already."""
    pictures = [images.decode(data.source.read(index)) for index in range(len(data))]

    def batches(epoch: int, first_step: int) -> Iterator[tuple[np.ndarray, ...]]:
        def sample(index: int) -> tuple[np.ndarray, np.int32]:
            rng = stream.generator(cfg.seed, stream.SAMPLE, epoch, index)
            return TRANSFORMS.train(pictures[index % len(pictures)], rng, cfg), data.labels[index % len(pictures)]

        order = stream.training_order(stream.shuffled(1_000_000, cfg.seed, epoch), cfg.batch_size)
        for image, label in stream.batches(sample, order, cfg.num_workers):
            yield image, targets.smooth_one_hot(label, len(data.class_to_index), cfg.label_smooth)

    return batches


def from_files(data: LabelledImages, cfg: Config) -> Batches:
    """Batches of the loader itself, which reads and decodes the files again and again."""
    many = data.select(np.arange(1_000_000) % len(data))
    return Loader(many, TRANSFORMS, cfg, stream.BadFiles("error", print)).train_batches


def measure(batches: Batches, row: Row, steps: int, folder: Path, batch: int) -> Measured:
    """Train `steps` steps on the stand-in."""
    everywhere = os.sched_getaffinity(0)
    card, count = Card(row.device_ms / 1000), WARM_UP + steps
    schedule = loop.Schedule(1, count, batch, batch * count, np.full(count, 0.1), log_last=False)
    lines = loop.Lines(epoch=lambda *numbers: "")
    training = loop.Training(None, TrainStep(card.step, []), batches, schedule, lines=lines, in_flight=2)
    os.sched_setaffinity(0, sorted(everywhere)[: row.cores])  # threads have the cores of the one that starts them
    try:
        with Journal(folder) as journal:
            cpu = time.process_time()
            loop.train(training, loop.Position(), journal, lambda position: None)
            cpu = time.process_time() - cpu
    finally:
        os.sched_setaffinity(0, everywhere)
    return Measured(1000 * (card.began[-1] - card.began[WARM_UP - 1]) / steps, 1000 * cpu / (batch * count))


def table(found: dict[Row, list[Measured]], batch: int) -> str:
    """Markdown: a line per row with the median of all rounds and their range."""
    lines = [
        "| images | cores | card, ms | step, ms (lowest to highest) | images/s | x max(card, host) | CPU ms/image |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row, rounds in found.items():
        steps = [one.step_ms for one in rounds]
        step, cpu = statistics.median(steps), statistics.median(one.cpu_ms for one in rounds)
        host = statistics.median(one.step_ms for one in found[row._replace(device_ms=0.0)])
        ratio = f"{step / max(row.device_ms, host):.3f}" if row.device_ms else "-"
        lines.append(
            f"| {row.data} | {row.cores} | {row.device_ms:.0f} | {step:.1f} ({min(steps):.1f} to {max(steps):.1f}) "
            f"| {1000 * batch / step:.0f} | {ratio} | {cpu:.2f} |"
        )
    return "\n".join(lines)


def sizing(found: dict[Row, list[Measured]], batch: int, device_ms: float) -> Iterator[str]:
    """How many cores a card of `device_ms` a step needs."""
    needed = 1000 * batch / device_ms
    for row, rounds in found.items():
        if row.cores == 1:
            speed = 1000 * batch / statistics.median(one.step_ms for one in rounds)
            yield (
                f"{row.data}: one core makes {speed:.0f} images/s; a card that takes {needed:.0f} images/s needs "
                f"{needed / speed:.1f} cores, eight of them {8 * needed / speed:.0f}"
            )


def main(argv: list[str]) -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="each measures every row once (default %(default)s)")
    parser.add_argument("--steps", type=int, default=15, help="that are counted in a round (default %(default)s)")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--size", type=int, default=224, help="of the network's input, pixels")
    parser.add_argument("--device_ms", type=float, default=224.0, help="a step of the card (default %(default)s)")
    args = parser.parse_args(argv)
    cores = len(stream.usable_cores())
    cfg = dataclasses.replace(
        build(Config, read_yaml(ROOT / "default_config.yaml")),
        batch_size=args.batch, image_height=args.size, image_width=args.size, num_workers=cores,
    )  # fmt: skip
    found: dict[Row, list[Measured]] = {}
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        folder = Path(name)
        photos.write_photos(folder / "data")
        data = scan(str(folder / "data"), ())
        sources = {"decoded in memory": in_memory(data, cfg), "JPEG files": from_files(data, cfg)}
        for _ in range(args.rounds):
            for label, batches in sources.items():
                for row in dict.fromkeys(
                    (Row(label, 1, 0.0), Row(label, cores, 0.0), Row(label, cores, args.device_ms))
                ):
                    found.setdefault(row, []).append(measure(batches, row, args.steps, folder, args.batch))
    print(
        f"Batch {args.batch}, {args.size} x {args.size} pixels, {cores} cores, load {os.getloadavg()[0]:.1f}; "
        f"median of {args.rounds} rounds of {args.steps} steps.\n"
    )
    print(table(found, args.batch) + "\n")
    for line in sizing(found, args.batch, args.device_ms):
        print(f"- {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
