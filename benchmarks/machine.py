"""What this machine and its software are."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

from src.engine.data.stream import usable_threads

PACKAGES = ("mindspore", "torch", "onnxruntime", "numpy", "opencv-python-headless", "pillow")
BUSY = 0.5  # load average above which something else is running


def facts() -> dict[str, str]:
    """Name and value, in the order in which they are printed."""
    found = {
        "processor": processor(),
        "cores": str(usable_threads(os.cpu_count() or 1)),
        "load average before": f"{os.getloadavg()[0]:.2f}",
        "system": platform.platform(),
        "python": platform.python_version(),
    }
    return {**found, **{package: version(package) for package in PACKAGES}}


def warnings() -> list[str]:
    """What makes times of this machine doubtful now."""
    load = os.getloadavg()[0]
    if load < BUSY:
        return []
    return [f"the load average was {load:.1f} before the first round: if other programs were running, measure again"]


def processor() -> str:
    """The model as the system names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
