"""What this process finds around it: environment variables of libraries, and the devices of the machine."""

from __future__ import annotations

import gc
import os
from pathlib import Path

DEFAULTS = {  # the user's own values win
    "GLOG_v": "4",  # MindSpore says in its exceptions what it would also log
    "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin while they wait slow each other down where cores are few
}
OBJECTS = 50_000  # new ones before Python looks for garbage; at its 700, a twentieth of the time to the first step


def prepare() -> None:
    """Set the defaults, and how often Python looks for garbage; call it before MindSpore is imported."""
    gc.set_threshold(OBJECTS)
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)


def usable_platform() -> str:
    """The best platform whose device files exist on this machine."""
    if Path("/dev/davinci0").exists() or Path("/dev/davinci_manager").exists():
        return "Ascend"
    return "GPU" if Path("/dev/nvidia0").exists() else "CPU"
