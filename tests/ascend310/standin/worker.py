"""The network behind the stand-in library: reads float32 batches from stdin, writes the outputs to stdout.

python worker.py FILE            (FILE is what the stand-in atc wrote)
python worker.py --serve SOCKET  (for many short runs: see STANDIN_WORKERS in state.h)
"""

from __future__ import annotations

import importlib
import os
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import BinaryIO, NoReturn

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from engine import LOADERS


def read_model(path: Path) -> tuple[str, list[int], bytes]:
    """Engine, shape of the input and content of the exported file."""
    content = path.read_bytes()
    head, _, rest = content.partition(b"\npayload ")
    lines = [line.split() for line in head.decode().splitlines()]
    kind, _, payload = rest.partition(b"\n")
    shape = next([int(word) for word in line[3:]] for line in lines if line[0] == "input")
    return kind.decode().split()[0], shape, payload


def answer(model: Path, source: BinaryIO, target: BinaryIO) -> None:
    """Run the network of a model file on every batch that comes."""
    engine, shape, content = read_model(model)
    run, _ = LOADERS[engine](content)
    size = int(np.prod(shape)) * np.dtype(np.float32).itemsize
    while data := source.read(size):
        for output in run(np.frombuffer(data, np.float32).reshape(shape).copy()):
            target.write(np.ascontiguousarray(output).tobytes())
        target.flush()


def serve(path: str) -> None:
    """A process per connection, which names its model file first: Python and onnxruntime are loaded once for all."""
    importlib.import_module("onnxruntime")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for these processes
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        print("ready", flush=True)
        while True:
            connection, _ = listener.accept()
            with connection:
                if os.fork() == 0:
                    answer_one(connection)


def answer_one(connection: socket.socket) -> NoReturn:
    """The work of a forked process, which ends without Python's own clean-up: that waits for onnxruntime's threads."""
    status = 1
    try:
        with connection.makefile("rb") as source, connection.makefile("wb") as target:
            answer(Path(os.fsdecode(source.readline()).rstrip("\n")), source, target)
        status = 0
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(status)


def main() -> int:
    if sys.argv[1] == "--serve":
        serve(sys.argv[2])
        return 0
    channel = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not get between the numbers
    answer(Path(sys.argv[1]), *channel)
    return 0


if __name__ == "__main__":
    sys.exit(main())
