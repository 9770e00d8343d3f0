"""What this machine is, and which revision of this project is measured."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

from src.engine.data.stream import usable_cores

ROOT = Path(__file__).resolve().parent.parent
BUSY = 0.5  # load average above which something else is running


def facts() -> dict[str, str | int]:
    """What is stored with every measurement."""
    return {
        "processor": processor(),
        "cores": len(usable_cores()),
        "system": platform.platform(),
        "revision": revision(),
    }


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


def revision() -> str:
    """Of git, marked where files differ from it."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return ended.stdout.strip() or "unknown"
