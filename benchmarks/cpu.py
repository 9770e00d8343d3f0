"""Compare this project with PyTorch on this machine's CPU: the table of what a user would choose by.

python -m benchmarks.cpu [--only train,segformer_train] [--rounds 3] [--steps 5] [--int8 FILE] [--out FOLDER]

Every contender is a process of its own; all contenders of a section take turns, round by round. Tables hold medians and
the ratio to the best variant of PyTorch (above 1: faster, or less memory). INT8 is measured only with --int8 FILE, an
ONNX file of MobileNetV2-quant; files (cpu.json, cpu.md, cpu.png) are written only with --out FOLDER.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import cpu_report, machine
from benchmarks.cpu_plan import INT8_FILE, MOBILENET, SECTIONS, SEGFORMER, Row, Section
from benchmarks.flag_types import positive, some_of
from src.engine.config import Parser
from src.engine.data.stream import usable_cores
from src.engine.errors import UsageError, ZooError

ROOT = Path(__file__).resolve().parent.parent
LONGEST = 600  # seconds that one contender may take


class Failed(Exception):
    """A contender ended without an answer; the text says why."""


def call(module: str, worker: str, flags: dict[str, object], scratch: Path, cores: int, environment: dict) -> dict:
    """Run one worker on the first `cores` cores; returns the JSON object on the last line that it printed."""
    command = [sys.executable, "-m", module, "--worker", worker]
    for name, value in {**flags, "threads": cores}.items():
        command += [f"--{name}", str(value)]
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    compiled = {"TORCHINDUCTOR_CACHE_DIR": str(scratch / "torch"), "BENCHMARK_BEGAN": repr(time.time())}
    settings = {**os.environ, "PYTHONPATH": path, **compiled, **environment}
    allowed = usable_cores()[:cores]
    try:
        ended = subprocess.run(
            command,
            cwd=scratch,
            env=settings,
            capture_output=True,
            text=True,
            check=False,
            timeout=LONGEST,
            preexec_fn=lambda: os.sched_setaffinity(0, allowed),
        )
    except subprocess.TimeoutExpired as error:
        raise Failed(f"not done after {LONGEST} s") from error
    lines = ended.stdout.strip().splitlines()
    if ended.returncode == 0 and lines:
        with contextlib.suppress(json.JSONDecodeError):
            return json.loads(lines[-1])
    said = (ended.stderr.strip().splitlines() or ["no message"])[-1]
    raise Failed(f"status {ended.returncode}, {said}")


class Runner:
    """Calls rows and remembers their answers; a row that two sections share is measured once per round."""

    def __init__(self, args: argparse.Namespace, scratch: Path):
        self.args, self.scratch, self.cores = args, scratch, len(usable_cores())
        self.answers: dict[tuple, list[dict]] = {}
        self.notes: dict[tuple, str] = {}
        self.prepared: set[str] = set()

    def key(self, row: Row) -> tuple:
        return (row.module, row.worker, *sorted(row.flags.items()), row.cores, row.second, *sorted(row.environment))

    def prepare(self, worker: str) -> None:
        """Have a worker of MobileNetV2's benchmark write what others read, once."""
        if worker not in self.prepared:
            self.prepared.add(worker)
            about = self.run(MOBILENET, worker, {**self.common(MOBILENET)}, self.cores, {}).get("about")
            if about:
                print(f"- {about}", flush=True)

    def common(self, module: str) -> dict[str, object]:
        if module == SEGFORMER:
            return {"size": "512x1024", "steps": self.args.steps}
        return {
            "size": 224,
            "batch": 32,
            "steps": self.args.steps,
            "images": self.args.images or self.scratch / "photos",
            "onnx": self.scratch / "mobilenetv2.onnx",
        }

    def run(self, module: str, worker: str, flags: dict, cores: int, environment: dict) -> dict:
        return call(module, worker, flags, self.scratch, cores, environment)

    def measure(self, row: Row) -> dict | None:
        """The row's next answer; None where it failed, now or before."""
        key = self.key(row)
        if key in self.notes:
            return None
        try:
            for worker in needed(row, bool(self.args.images)):
                self.prepare(worker)
            flags = {**self.common(row.module), **row.flags}
            if row.second and key not in self.answers:
                self.run(row.module, row.worker, flags, row.cores or self.cores, row.environment)
            answer = self.run(row.module, row.worker, flags, row.cores or self.cores, row.environment)
        except Failed as error:
            self.notes[key] = f"failed, {error}"
            return None
        if "left_out" in answer:
            self.notes[key] = f"left out, {answer['left_out']}"
            return None
        self.answers.setdefault(key, []).append(answer)
        return answer


def needed(row: Row, has_images: bool) -> list[str]:
    """Workers that have to run before."""
    if row.worker in ("infer_onnx", "infer_onnx_single") and row.module == MOBILENET:
        return [] if "onnx" in row.flags else ["export"]
    images = [] if has_images or not row.worker.startswith(("data", "finetune")) else ["photos"]
    return [*images, "pretrained"] if row.worker == "finetune_ours" else images


def missing_packages(rows: list[Row]) -> dict[str, str]:
    needed_by_rows = dict.fromkeys(package for row in rows for package in row.needs)
    absent = [package for package in needed_by_rows if importlib.util.find_spec(package) is None]
    return {package: f"{package} is not installed: its rows are left out" for package in absent}


def turns(runner: Runner, section: Section, rows: list[Row]) -> None:
    """All rounds of a section; what an earlier section has measured already is not measured again."""
    known = {runner.key(row): len(runner.answers.get(runner.key(row), ())) for row in rows}
    for number in range(1, min(runner.args.rounds, section.most_rounds) + 1):
        for row in rows:
            if known[runner.key(row)] >= number:
                continue
            answer = runner.measure(row)
            value = "-" if answer is None else format(answer[section.field], section.number)
            print(f"round {number}, {section.title}: {row.label}: {value}", file=sys.stderr, flush=True)


def measure(args: argparse.Namespace) -> int:
    """Run the sections, print and write what is known after each; returns the exit status."""
    facts = machine.facts()
    print("\n".join(f"- {name}: {value}" for name, value in facts.items()), flush=True)
    missing = missing_packages([row for name in args.only for row in SECTIONS[name].rows])
    notes, results, began = [*machine.warnings(), *missing.values()], [], time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="benchmark-") as scratch:
        runner = Runner(args, Path(scratch))
        if args.int8:
            shutil.copyfile(args.int8, Path(scratch) / INT8_FILE)
        for name in args.only:
            if name == "int8" and not args.int8:
                notes.append("int8 is left out: give --int8 FILE, an ONNX file of MobileNetV2-quant")
                continue
            rows = [r for r in SECTIONS[name].rows if not set(r.needs) & set(missing) and r.cores <= runner.cores]
            turns(runner, SECTIONS[name], rows)
            notes += [
                f"{name}, {r.label}: {runner.notes[runner.key(r)]}" for r in rows if runner.key(r) in runner.notes
            ]
            found = cpu_report.rows(name, rows, lambda row: runner.answers.get(runner.key(row), []))
            results += found
            print(f"\n{cpu_report.table(name, found)}\n", flush=True)
            if args.out:
                settings = {"rounds": args.rounds, "steps": args.steps, "only": args.only}
                content = {"machine": facts, "settings": settings, "notes": notes, "results": results}
                cpu_report.write(args.out, content)
    notes.append(f"all of it took {(time.perf_counter() - began) / 60:.0f} minutes")
    print("\n".join(f"- {note}" for note in notes))
    return 1 if runner.notes else 0


def main(argv: list[str]) -> int:
    """Returns the exit status: 0, 1 where a contender failed, 2 for a wrong command line."""
    flags = Parser(prog="python -m benchmarks.cpu", description=__doc__.split("\n")[0], allow_abbrev=False)
    flags.add_argument("--only", type=some_of(SECTIONS), default=list(SECTIONS), help=f"some of {','.join(SECTIONS)}")
    flags.add_argument("--rounds", type=positive, default=3, help="how often each contender runs (default 3)")
    flags.add_argument("--steps", type=positive, default=5, help="timed steps per run (default 5)")
    flags.add_argument("--images", help="folder of class folders; without it, cuts of two photographs are written")
    flags.add_argument(
        "--int8", type=Path, metavar="FILE", help="ONNX file of MobileNetV2-quant; without it INT8 is left out"
    )
    flags.add_argument(
        "--out", type=Path, metavar="FOLDER", help="write cpu.json, cpu.md and cpu.png; without it nothing is written"
    )
    try:
        args = flags.parse_args(argv)
        if args.int8 and not args.int8.is_file():
            raise UsageError(f"--int8 {args.int8} is no file; export MobileNetV2-quant as ONNX first")
        if args.images:
            args.images = str(Path(args.images).expanduser().resolve())
        return measure(args)
    except ZooError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
