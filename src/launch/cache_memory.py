"""Whether a data set fits into the dataset cache: python -m src.launch.cache_memory DATASET_PATH [--spill FOLDER]."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import psutil

from src.engine.config import Parser, is_archive
from src.engine.data.image_folder import TRAIN_FOLDERS, scan
from src.engine.errors import UsageError, ZooError, reports_errors

SERVER_SHARE = 0.8  # of this machine's memory is the most that the cache server takes
OVERHEAD = 1024  # bytes per file, generously: key, label, shape


def needed(path: str) -> tuple[int, int]:
    """Number of image files below `path`, and bytes that the server needs for them."""
    if is_archive(path):
        raise UsageError(
            f"{path} is an archive and the cache server reads folders only; unpack it or train without the cache"
        )
    source = scan(path, TRAIN_FOLDERS).source
    sizes = [max(source.stamp(index)[0], 0) for index in range(len(source))]
    return len(sizes), sum(sizes) + OVERHEAD * len(sizes)


def available() -> int:
    """Bytes that a cache server may take now."""
    memory = psutil.virtual_memory()
    return min(memory.available, int(SERVER_SHARE * memory.total))


def require(need: int, have: int, spill: str) -> None:
    """Raise where the data fit neither the memory nor, if one is given, memory and the spill folder together."""
    if spill and not Path(spill).is_dir():
        raise UsageError(f"CACHE_SPILL_DIR {spill} is not a folder; give an existing one")
    disk = shutil.disk_usage(spill).free if spill else 0
    if need > have + disk:
        there = f"memory for {have / 1e9:.1f} GB" + (f" and {disk / 1e9:.1f} GB in {spill}" if spill else "")
        remedy = "train without the cache" if spill else "set CACHE_SPILL_DIR to a folder on a local disk"
        raise ZooError(f"the data set needs {need / 1e9:.1f} GB in the cache and there is {there}; {remedy}")


@reports_errors
def main(argv: list[str]) -> int:
    parser = Parser(prog="python -m src.launch.cache_memory", description=__doc__)
    parser.add_argument("dataset_path")
    parser.add_argument("--spill", default="", metavar="FOLDER", help="the server's folder for what memory cannot hold")
    args = parser.parse_args(argv)
    files, need = needed(args.dataset_path)
    have = available()
    require(need, have, args.spill)
    print(f"dataset cache: {files} files need {need / 1e9:.2f} GB, there is memory for {have / 1e9:.2f} GB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
