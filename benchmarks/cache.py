"""Times of the first and second epoch of the input pipeline, with and without the dataset cache.

python -m benchmarks.cache [--images FOLDER] [--rounds 3]

Nothing is trained. On a local disk the cache can only cost; what it saves on a network file system is the difference in
reading the files, so give --images on that file system, and drop the page cache between runs if you may.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from src.engine import environment
from src.engine.config import Parser, Value, build, canonical, read_yaml
from src.engine.errors import ZooError, reports_errors

ROOT = Path(__file__).resolve().parent.parent
SIZE, BATCH = 224, 32
EPOCHS = 2


def epochs(folder: str, session: int) -> list[float]:
    """Seconds that each epoch's batches take; `session` 0 is without the cache."""
    environment.prepare()
    from src.classification.dataset import Loader
    from src.engine.data import stream
    from src.engine.data.image_folder import TRAIN_FOLDERS, scan
    from src.mobilenetv2.classifier import MOBILENETV2
    from src.mobilenetv2.config import Config

    values = canonical(Config, read_yaml(ROOT / "default_config_cpu.yaml"))
    values.update(image_height=Value(SIZE, "-"), image_width=Value(SIZE, "-"), batch_size=Value(BATCH, "-"))
    cfg, images = build(Config, values), scan(folder, TRAIN_FOLDERS)
    if session:
        from src.engine.data.cached_files import CachedFiles

        images = dataclasses.replace(images, source=CachedFiles(images.source, session, False))
    loader = Loader(images, MOBILENETV2.transforms, cfg, stream.BadFiles("error", print))
    found = []
    for epoch in range(EPOCHS):
        began = time.perf_counter()
        for _ in loader.train_batches(epoch):
            pass
        found.append(time.perf_counter() - began)
    return found


def admin(port: int, *arguments: str) -> str:
    """MindSpore's command line tool for the cache server."""
    tool = Path(sys.executable).with_name("dataset-cache")
    ended = subprocess.run([str(tool), *arguments, "-p", str(port)], capture_output=True, text=True, check=False)
    if ended.returncode:
        raise ZooError(f"dataset-cache {arguments[0]} failed: {(ended.stdout + ended.stderr).strip()}")
    return ended.stdout


def worker(folder: Path, session: int, port: int) -> list[float]:
    """`epochs` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.cache", "--worker", str(session), "--images", str(folder)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "MS_CACHE_PORT": str(port)}
    ended = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise ZooError(f"a measurement failed: {(ended.stderr.strip().splitlines() or ['no message'])[-1]}")
    return json.loads(ended.stdout.splitlines()[-1])


def measure(folder: Path, rounds: int, port: int) -> dict[str, list[list[float]]]:
    """Epoch times of every round; each cached round has a session of its own, so that its first epoch fills it."""
    found: dict[str, list[list[float]]] = {"without cache": [], "with cache": []}
    admin(port, "--start")
    try:
        for _ in range(rounds):
            found["without cache"].append(worker(folder, 0, port))
            session = admin(port, "--generate_session").split()[-1]
            found["with cache"].append(worker(folder, int(session), port))
            admin(port, "--destroy_session", session)
    finally:
        admin(port, "--stop")
    return found


@reports_errors
def main(argv: list[str]) -> int:
    parser = Parser(prog="python -m benchmarks.cache", description=__doc__.split("\n")[0])
    parser.add_argument("--images", metavar="FOLDER", help="folder of class folders; default: generated photographs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--port", type=int, default=50151, help="of the cache server (default %(default)s)")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.worker is not None:
        print(json.dumps(epochs(args.images, args.worker)))
        return 0
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        folder = Path(args.images).expanduser().resolve() if args.images else Path(name)
        if not args.images:
            from benchmarks.photos import write_photos

            print(write_photos(folder))
        found = measure(folder, args.rounds, args.port)
    print(f"seconds per epoch of the input pipeline at {SIZE}x{SIZE}, median of {args.rounds}")
    for label, times in found.items():
        medians = "   ".join(f"epoch {e + 1}: {statistics.median(t[e] for t in times):.2f}" for e in range(EPOCHS))
        print(f"{label:<14} {medians}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
