"""The network behind the stand-in library: reads float32 batches from stdin, writes the outputs to stdout.

python worker.py FILE   (FILE is what the stand-in atc wrote)
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

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


def main() -> int:
    channel = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not get between the numbers
    engine, shape, content = read_model(Path(sys.argv[1]))
    run, _ = LOADERS[engine](content)
    size = int(np.prod(shape)) * np.dtype(np.float32).itemsize
    while data := channel[0].read(size):
        for output in run(np.frombuffer(data, np.float32).reshape(shape).copy()):
            channel[1].write(np.ascontiguousarray(output).tobytes())
        channel[1].flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
