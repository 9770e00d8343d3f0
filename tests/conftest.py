"""Shared helpers: tiny image folders, configurations and the commands run as a user would."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import hypothesis
import numpy as np
import pytest
import yaml

hypothesis.settings.register_profile("patient", deadline=None)  # no test is about wall-clock time
hypothesis.settings.load_profile("patient")

ROOT = Path(__file__).resolve().parent.parent
CLASSES = ("cat", "dog", "owl")


def write_images(folder: Path, per_class: int, size: int = 40, classes=CLASSES, seed: int = 0) -> Path:
    """Class folders of JPEG files; each class has its own colour, so that a network can learn them."""
    rng = np.random.default_rng(seed)
    for index, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            image = rng.integers(0, 80, (size, size, 3), dtype=np.uint8)
            image[..., index % 3] += 150
            cv2.imwrite(str(folder / name / f"{number:03d}.jpg"), image)
    return folder


@pytest.fixture(scope="session")
def images(tmp_path_factory) -> Path:
    """train/ (3 x 8 images) and val/ (3 x 3 images)."""
    root = tmp_path_factory.mktemp("images")
    write_images(root / "train", 8)
    write_images(root / "val", 3, seed=1)
    return root


def default_signals() -> None:
    """For preexec_fn: signals do what they usually do, even if the tests run under nohup or behind a shell's &."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def write_settings(path: Path, settings: dict) -> Path:
    """A configuration file for --config_path."""
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def run_command(*arguments: str, cwd: Path | None = None, timeout: float = 900, **environment: str):
    """Run `python ...` as a user would, from `cwd`; the result has stdout, stderr and returncode."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd or ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
