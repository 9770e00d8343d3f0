"""Turn Cityscapes' polygon annotations into the masks that training reads: *_polygons.json -> *_labelTrainIds.png.

python tools/convert_dataset.py data/cityscapes --nproc 8

Masks are written beside their annotations (gtFine/SPLIT/CITY). What is up to date is skipped, so that an interrupted
run goes on where it stopped; a broken annotation does not stop the others and is listed at the end (exit status 1). The
mask that such an annotation had before is removed, so that no training uses it.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import multiprocessing.connection
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from src.engine.config import Parser
from src.engine.errors import UsageError, ZooError, first_line
from src.engine.io.files import UNFINISHED, locked
from src.segformer.data import polygons

CHUNK = 4  # annotations that a process is given at once


def arguments(argv: list[str]) -> argparse.Namespace:
    """Parse and check the command line; raises UsageError."""
    parser = Parser(prog="python tools/convert_dataset.py", description=__doc__)
    parser.add_argument("cityscapes_path", type=Path, metavar="CITYSCAPES", help="folder that holds gtFine/")
    parser.add_argument("--nproc", type=int, default=8, help="processes to use (default 8)")
    parser.add_argument("--force", action="store_true", help="convert what is up to date as well")
    args = parser.parse_args(argv)
    if args.nproc < 1:
        raise UsageError(f"nproc is {args.nproc}; it has to be at least 1")
    args.cityscapes_path = args.cityscapes_path.expanduser()
    if not (args.cityscapes_path / "gtFine").is_dir():
        raise UsageError(f"{args.cityscapes_path} holds no folder gtFine; give the folder of the Cityscapes download")
    return args


def convert(annotation_file: Path) -> tuple[Path, str]:
    """(file, what is wrong with it); empty where the mask was written."""
    try:
        polygons.convert(annotation_file)
        return annotation_file, ""
    except Exception as error:  # whatever is wrong with one file must not stop the others
        is_told = isinstance(error, ZooError)
        reason = str(error) if is_told else f"{type(error).__name__}: {error}"
        is_wrong = is_told and not isinstance(error.__cause__, OSError)  # a full disk costs no current mask
        if is_wrong or not polygons.is_current(annotation_file):
            reason += without_mask(annotation_file)
        return annotation_file, reason


def without_mask(annotation_file: Path) -> str:
    """Remove the mask of an earlier conversion; what to say about it after the reason."""
    mask = polygons.target(annotation_file)
    if not mask.is_file():
        return ""
    try:
        mask.unlink()
    except OSError as error:
        return f"; its old mask {mask.name} cannot be removed ({first_line(error)})"
    return f"; its old mask {mask.name} was removed"


def end_with_the_parent() -> None:
    """In a worker: leave Ctrl-C to the parent, and do not outlive it, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process().sentinel

    def watch() -> None:
        multiprocessing.connection.wait([parent])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def convert_all(todo: list[Path], processes: int) -> Iterator[tuple[Path, str]]:
    processes = min(processes, len(todo))
    if processes <= 1:
        yield from map(convert, todo)
        return
    fresh = multiprocessing.get_context("spawn")  # forked processes would hold the folder's lock after a crash
    with ProcessPoolExecutor(processes, fresh, end_with_the_parent) as pool:
        try:
            yield from pool.map(convert, todo, chunksize=CHUNK)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def run(root: Path, processes: int, force: bool) -> int:
    """Convert everything below `root`/gtFine and say what happened."""
    from tqdm import tqdm

    found = sorted((root / "gtFine").glob(f"*/*/*{polygons.POLYGONS}"))
    if not found:
        raise ZooError(f"{root / 'gtFine'} holds no */*/*{polygons.POLYGONS}; unpack gtFine_trainvaltest.zip there")
    todo = [file for file in found if force or not polygons.is_current(file)]
    failed = []
    with tqdm(total=len(todo), unit="mask", disable=not todo) as bar:
        for file, reason in convert_all(todo, processes):
            failed += [(file, reason)] if reason else []
            bar.update()
    print(
        f"{len(todo) - len(failed)} masks written, {len(found) - len(todo)} were up to date, {len(failed)} failed "
        f"in {root / 'gtFine'}"
    )
    for file, reason in failed:
        print(f"error: {file}: {reason}", file=sys.stderr)
    return 1 if failed else 0


def run_alone(root: Path, processes: int, force: bool) -> int:
    """`run`, refused while another conversion of the same folder is at work; removes what a killed one left."""

    def refuse() -> None:
        raise ZooError(f"another conversion of {root} is running; wait for it")

    with contextlib.ExitStack() as held:
        if os.access(root / "gtFine", os.W_OK):  # else no conversion can be at work
            held.enter_context(locked(root / "gtFine" / ".lock", refuse))
            for left in (root / "gtFine").glob(f"*/*/{UNFINISHED}*"):
                shutil.rmtree(left, ignore_errors=True)
        return run(root, processes, force)


def main(argv: list[str]) -> int:
    try:
        args = arguments(argv)
        return run_alone(args.cityscapes_path, args.nproc, args.force)
    except (ZooError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return getattr(error, "status", 1)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
