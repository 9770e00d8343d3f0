"""Environment variables that libraries read when they are loaded; the user's own values win."""

from __future__ import annotations

import os

DEFAULTS = {
    "GLOG_v": "4",  # MindSpore says in its exceptions what it would also log
    "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin while they wait slow each other down where cores are few
}


def prepare() -> None:
    """Set the defaults; call it before MindSpore is imported."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
