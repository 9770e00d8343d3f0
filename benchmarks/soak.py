"""Train on the digits for long, with an evaluation and a checkpoint every epoch, and watch what the process holds.

python -m benchmarks.soak [--minutes 30] [--folder FOLDER]

Prints resident memory, open files, threads and processes after the warm-up (the first tenth) and at the end, and ends
with status 1 if one of them grew: memory by more than 5 %, the others at all. The training is then asked to stop: it
has to save and end by itself, and nothing of it may be left.
"""

from __future__ import annotations

import contextlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import psutil

from src.engine import report
from src.engine.config import Parser
from src.engine.errors import ZooError, reports_errors

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "configs" / "mobilenetv2" / "digits_cpu.yaml"
EPOCHS = 10_000  # more than anybody waits for
FEWEST = 20  # samples
GROWTH = 1.05  # of memory, that is still noise of the allocator
PATIENCE = 120.0  # seconds that the training gets to save and end


class Held(NamedTuple):
    """What the training and its children hold at one moment."""

    memory: int  # bytes
    files: int
    threads: int
    processes: int


def held(process: psutil.Process) -> Held:
    family = [process, *process.children(recursive=True)]
    return Held(
        sum(one.memory_info().rss for one in family),
        sum(one.num_fds() for one in family),
        sum(one.num_threads() for one in family),
        len(family),
    )


def median(samples: list[Held]) -> Held:
    return Held(*(round(statistics.median(column)) for column in zip(*samples)))


def watch(command: list[str], run: Path, seconds: float) -> list[Held]:
    """Samples of a training over `seconds`, counted from its first checkpoint on; it has ended well then."""
    log = run.parent / "output.log"
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(log.open("wb"))
        child = stack.enter_context(subprocess.Popen(command, stdout=output, stderr=output))
        stack.callback(child.terminate)  # where watching ends otherwise than by its end
        process, samples, began, asked = psutil.Process(child.pid), [], None, False
        while child.poll() is None:
            time.sleep(min(5.0, seconds / (2 * FEWEST)))
            if began is None:
                began = time.monotonic() if list(run.glob("*.ckpt")) else None
                continue
            waited = time.monotonic() - began - seconds
            if not asked and waited < 0:
                samples.append(held(process))
            elif not asked:
                started = process.children(recursive=True)
                child.send_signal(signal.SIGTERM)
                asked = True
            elif waited > PATIENCE:
                child.kill()
                raise ZooError(f"the training did not end within {PATIENCE:.0f} seconds of SIGTERM")
    if not asked or child.returncode != 128 + signal.SIGTERM:
        text = log.read_text(errors="replace").strip()
        raise ZooError(f"the training ended with {child.returncode}: {text.splitlines()[-1] if text else 'no message'}")
    left = [one.pid for one in started if one.is_running()]
    if left:
        raise ZooError(f"the training has left processes behind: {left}")
    return samples


def rows(first: Held, last: Held, epochs: int, seconds: float) -> list[tuple[str, str]]:
    return [
        ("", f"{'start':>8} {'end':>8}"),
        ("resident memory, MB", f"{first.memory / 1e6:8.0f} {last.memory / 1e6:8.0f}"),
        ("open files", f"{first.files:8} {last.files:8}"),
        ("threads", f"{first.threads:8} {last.threads:8}"),
        ("processes", f"{first.processes:8} {last.processes:8}"),
        ("epochs trained and evaluated", f"{epochs} in {seconds / 60:.0f} minutes"),
    ]


def soak(folder: Path, seconds: float) -> int:
    data, run = folder / "digits", folder / "run"
    subprocess.run([sys.executable, ROOT / "examples" / "make_digits.py", data], check=True, stdout=subprocess.DEVNULL)
    command = [sys.executable, ROOT / "train.py", "--config_path", CONFIG, "--dataset_path", data / "train"]
    command += ["--epoch_size", EPOCHS, "--save_checkpoint_path", run, "--log_interval", 0]
    samples = watch([str(word) for word in command], run, seconds)
    tenth = len(samples) // 10
    first, last = median(samples[tenth : 2 * tenth]), median(samples[-tenth:])
    epochs = sum('"kind": "epoch"' in line for line in (run / "metrics.jsonl").read_text().splitlines())
    print(report.table(rows(first, last, epochs, seconds)))
    if last.memory > GROWTH * first.memory or any(end > start for start, end in zip(first[1:], last[1:])):
        print("error: the training holds more at the end than at the start", file=sys.stderr)
        return 1
    return 0


@reports_errors
def main() -> int:
    parser = Parser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long to watch (default 30)")
    parser.add_argument("--folder", type=Path, help="where to train (default: a temporary folder)")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        given = parser.parse_args()
        if not given.minutes > 0:
            raise ZooError(f"--minutes is {given.minutes}; it has to be above 0")
        with tempfile.TemporaryDirectory(prefix="soak-") as temporary:
            return soak((given.folder or Path(temporary)).absolute(), 60 * given.minutes)
    except KeyboardInterrupt:
        print("stopped before the end", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
