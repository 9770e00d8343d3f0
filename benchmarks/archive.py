"""A data set in one .tar or .zip file beside the same files in a folder: time to list it, memory, reads at random.

python -m benchmarks.archive [--files 1281167] [--bytes 200] [--rounds 3]

The default is ImageNet's number of files, each of which is small, because what is measured grows with their number.
Every row is a process of its own. All files are in the page cache: a network file system adds its round trip to every
file that a folder opens, and to every read of an archive.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from src.engine.config import Parser
from src.engine.data.archive import IndexFolder
from src.engine.data.image_folder import scan
from src.engine.errors import ZooError, reports_errors
from tools import pack_data

ROOT = Path(__file__).resolve().parent.parent
CLASSES = 1000
READS = 20_000
ROWS = ("folder", "tar, first time", "tar, indexed", "zip, first time", "zip, indexed")


def write_folder(folder: Path, count: int, size: int) -> None:
    """Class folders of `count` files with `size` random bytes, named as ImageNet's."""
    rng = np.random.default_rng(0)
    for index in range(CLASSES):
        place = folder / f"n{index:08d}"
        place.mkdir(parents=True)
        for number in range(index, count, CLASSES):
            (place / f"n{index:08d}_{number}.JPEG").write_bytes(rng.bytes(size))


def write_zip(folder: Path, out: Path) -> None:
    with zipfile.ZipFile(out, "w") as made:
        for path in sorted(folder.rglob("*.JPEG")):
            made.write(path, path.relative_to(folder))


def memory(kind: str) -> float:
    """MB of this process: now (VmRSS) or at most since it began (VmHWM)."""
    return int(re.search(rf"{kind}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


def measure(row: str, folder: Path) -> dict[str, float]:
    """Seconds to list, microseconds per read at random, and what the process took of memory at most, in MB."""
    kind, _, times = row.partition(", ")
    path = folder / "data" if kind == "folder" else folder / f"data.{kind}"
    indexes = None if kind == "folder" else IndexFolder(folder / times)
    if times == "first time":
        for left in (folder / times).glob(f"{path.stem}*"):
            left.unlink()
    before = memory("VmRSS")
    began = time.perf_counter()
    images = scan(str(path), (), indexes=indexes)
    listed = time.perf_counter() - began
    order = np.random.default_rng(0).integers(0, len(images), READS)
    began = time.perf_counter()
    for index in order:
        images.source.read(int(index))
    read = (time.perf_counter() - began) / READS
    return {"files": len(images), "list_s": listed, "read_us": 1e6 * read, "mb": memory("VmHWM") - before}


def worker(row: str, folder: Path) -> dict[str, float]:
    """`measure` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.archive", "--worker", row, "--folder", str(folder)]
    ended = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    if ended.returncode:
        raise ZooError(f"a measurement failed: {(ended.stderr.strip().splitlines() or ['no message'])[-1]}")
    return json.loads(ended.stdout.splitlines()[-1])


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """Medians, with the lowest and highest."""
    lines = ["| where | files | listed in s | memory, MB | a read, us |", "|---|---|---|---|---|"]
    for row, rounds in found.items():
        cells = [f"{row} | {rounds[0]['files']:.0f}"]
        for key, digits in (("list_s", 2), ("mb", 0), ("read_us", 1)):
            values = [one[key] for one in rounds]
            low, middle, high = (f"{of(values):.{digits}f}" for of in (min, statistics.median, max))
            cells.append(f"{middle} ({low} to {high})")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def step(what: str, work: Callable[[], object]) -> None:
    began = time.perf_counter()
    work()
    print(f"{what}: {time.perf_counter() - began:.1f} s", flush=True)


@reports_errors
def main(argv: list[str]) -> int:
    parser = Parser(prog="python -m benchmarks.archive", description=__doc__)
    parser.add_argument("--files", type=int, default=1_281_167, help="default: as many as ImageNet has")
    parser.add_argument("--bytes", type=int, default=200, help="of a file (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="default %(default)s")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.worker:
        print(json.dumps(measure(args.worker, args.folder)))
        return 0
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        folder = Path(name)
        data = folder / "data"
        step(f"wrote {args.files} files", lambda: write_folder(data, args.files, args.bytes))
        names = [path.relative_to(data).as_posix() for path in sorted(data.rglob("*.JPEG"))]
        step("packed them as .tar", lambda: pack_data.write(data, names, folder / "data.tar"))
        step("packed them as .zip", lambda: write_zip(data, folder / "data.zip"))
        for row in ROWS:
            if row.endswith("indexed"):
                worker(row, folder)  # writes the index that the rounds find
        found = {row: [worker(row, folder) for _ in range(args.rounds)] for row in ROWS}
    print(f"\n{args.bytes} bytes per file, {args.rounds} rounds, load {os.getloadavg()[0]:.1f}\n\n{table(found)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
