"""Run every contender in its own process, round by round, and collect what they measured."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from benchmarks import machine, tables
from benchmarks.contenders import CONTENDERS, SECTIONS, Contender, rows_of
from src.engine.errors import ZooError
from src.engine.io import files

ROOT = Path(__file__).resolve().parent.parent


class WorkerFailed(ZooError):
    """A worker ended without an answer; the text is the last line that it wrote."""


def measure(arguments: argparse.Namespace) -> int:
    """Run all rounds, print the tables, write them if wanted; returns the exit status."""
    facts = machine.facts()
    print("\n".join(f"{name}: {value}" for name, value in facts.items()), flush=True)
    contenders, missing = available(wanted(arguments.only))
    notes = [*machine.warnings(), *missing]
    with tempfile.TemporaryDirectory(prefix="benchmark-") as scratch:
        flags, about_images = prepare(arguments, contenders, Path(scratch), int(facts["cores"]))
        notes += about_images
        answers, failures = run_rounds(contenders, arguments.rounds, flags, Path(scratch))
    left_out = {name: answer["left_out"] for name, (answer, *_) in answers.items() if "left_out" in answer}
    labels = {contender.worker: f"{contender.kind}, {contender.label}" for contender in contenders}
    notes += [f"{labels[name]}: left out, {reason}" for name, reason in left_out.items()]
    notes += [f"{labels[name]}: failed, {reason}" for name, reason in failures.items()]
    settings = {name: getattr(arguments, name) for name in ("batch", "size", "rounds", "steps")}
    measured = {name: found for name, found in answers.items() if name not in left_out}
    results = [row for section in arguments.only for row in tables.rows(section, measured)]
    text = tables.markdown(settings, notes, results)
    print(f"\n{text}", end="", flush=True)
    if arguments.out:
        content = {"machine": facts, "settings": settings, "notes": notes, "results": results}
        files.write_text(arguments.out / "mobilenetv2.json", json.dumps(content, indent=2) + "\n")
        about = "".join(f"- {name}: {value}\n" for name, value in facts.items())
        files.write_text(arguments.out / "mobilenetv2.md", f"# MobileNetV2 measured\n\n{about}\n{text}")
        print(f"\nwritten to {arguments.out}")
    return 1 if failures else 0


def wanted(sections: list[str]) -> list[Contender]:
    """The contenders of the sections, each once, in table order."""
    names = {contender.worker for section in sections for contender in rows_of(section)}
    return [contender for contender in CONTENDERS if contender.worker in names]


def available(contenders: list[Contender]) -> tuple[list[Contender], list[str]]:
    """Those whose packages are installed, and one sentence per missing package."""
    needed = dict.fromkeys(package for contender in contenders for package in contender.needs)
    missing = [package for package in needed if importlib.util.find_spec(package) is None]
    notes = [f"{package} is not installed: its rows are left out" for package in missing]
    return [contender for contender in contenders if not set(contender.needs) & set(missing)], notes


def prepare(
    arguments: argparse.Namespace, contenders: list[Contender], scratch: Path, cores: int
) -> tuple[list[str], list[str]]:
    """Make the images and the ONNX file that the contenders read; returns their common flags and notes on the data."""
    flags = ["--batch", arguments.batch, "--size", arguments.size, "--steps", arguments.steps, "--threads", cores]
    notes = []
    if any(contender.kind == "data" for contender in contenders):
        folder = Path(arguments.images).expanduser().resolve() if arguments.images else scratch / "photos"
        flags += ["--images", folder]
        notes.append(call("photos" if not arguments.images else "count_images", flags, scratch)["about"])
    if any("onnxruntime" in contender.needs for contender in contenders):
        flags += ["--onnx", scratch / "mobilenetv2.onnx"]
        call("export", flags, scratch)
    return flags, notes


def run_rounds(
    contenders: list[Contender], rounds: int, flags: list, scratch: Path
) -> tuple[dict[str, list[dict]], dict[str, str]]:
    """Answers per worker, one per round, and why workers failed; who failed or is unavailable is not asked again."""
    answers: dict[str, list[dict]] = defaultdict(list)
    failures: dict[str, str] = {}
    done: set[str] = set()
    for number in range(1, rounds + 1):
        for contender in contenders:
            name = contender.worker
            if name in done:
                continue
            try:
                answer = call(name, flags, scratch)
            except WorkerFailed as error:
                failures[name] = str(error)
                answers.pop(name, None)
                result = f"failed, {error}"
            else:
                answers[name].append(answer)
                result = answer.get("left_out") or f"{answer['images_per_s']:.1f} images/s"
            if name in failures or "left_out" in answer:
                done.add(name)
            title = SECTIONS[contender.kind].title.split(",")[0]
            print(f"round {number}/{rounds}: {title}, {contender.label}: {result}", file=sys.stderr, flush=True)
    return answers, failures


def call(worker: str, flags: list, scratch: Path) -> dict:
    """Run one worker in a process of its own; returns the JSON object on the last line that it printed."""
    command = [sys.executable, "-m", "benchmarks.mobilenetv2", "--worker", worker, *map(str, flags)]
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    # In the scratch folder, because the framework leaves files of its own in the current one.
    settings = {**os.environ, "PYTHONPATH": path}
    ended = subprocess.run(command, cwd=scratch, env=settings, capture_output=True, text=True, check=False)
    lines = ended.stdout.strip().splitlines()
    if ended.returncode == 0 and lines:
        with contextlib.suppress(json.JSONDecodeError):
            return json.loads(lines[-1])
    said = (ended.stderr.strip().splitlines() or ["no message"])[-1]
    raise WorkerFailed(f"status {ended.returncode}, {said}")
