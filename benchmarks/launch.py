"""How long the launcher takes before a rank's first line: python -m benchmarks.launch [--rounds 5] [--ranks 2].

Measured from the start of `python -m src.launch` to the first line of rank 0's script, which imports nothing.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = "import time\nprint(time.time(), flush=True)\n"


def seconds(command: list[str], folder: Path, log: str) -> float:
    """From now to the time that the script prints as its first line."""
    began = time.time()
    subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return float((folder / log).read_text().splitlines()[0]) - began


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.launch", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ranks", type=int, default=2)
    args = parser.parse_args(argv)
    launch = [sys.executable, "-m", "src.launch", "--first_log", "first.log"]
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        folder = Path(name)
        (folder / "first_line.py").write_text(SCRIPT)
        commands = {
            "no launcher": [sys.executable, "-c", "import time; open('first.log', 'w').write(str(time.time()))"],
            "launcher, 1 rank": [*launch, "first_line.py"],
            f"launcher, {args.ranks} ranks by msrun": [*launch, "--device_num", str(args.ranks), "first_line.py"],
        }
        for _ in range(args.rounds):
            for label, command in commands.items():
                found.setdefault(label, []).append(seconds(command, folder, "first.log"))
    print(f"seconds from start to rank 0's first line, median (lowest to highest) of {args.rounds}")
    for label, values in found.items():
        print(f"{label:<28} {statistics.median(values):6.2f}  ({min(values):.2f} to {max(values):.2f})")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
