"""Whether the compiled kernels can be had here, and the sentence for the log where they cannot."""

from __future__ import annotations

import ctypes
from pathlib import Path

import mindspore as ms

from src.cpu_kernels.build import KernelsUnavailable, library_path
from src.engine.errors import ZooError

MODES = ("auto", "on", "off")


def find_library(mode: str) -> tuple[Path | None, str]:
    """The compiled kernels, or None and the reason: "off", or "auto" where they cannot be compiled."""
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, not {mode}")
    if mode == "off":
        return None, "not wanted"
    try:
        return library_path(), ""
    except KernelsUnavailable as reason:
        if mode == "on":
            raise ZooError(f"the CPU kernels are required but not available: {reason}") from reason
        return None, str(reason)


def has_bfloat16(library: Path) -> bool:
    """Whether this processor multiplies bfloat16; the kernels can without it, slower than float32."""
    return bool(ctypes.CDLL(str(library)).HasBfloat16())


def off_because(reason: str) -> str:
    """The sentence for the log where a network keeps its stock operators."""
    slow = f", and MindSpore {ms.__version__}'s own convolutions are many times slower than those of 2.8"
    return f"CPU kernels off: {reason}; stock operators are used" + (slow if stock_convolutions_are_slow() else "")


def stock_convolutions_are_slow() -> bool:
    """From 2.9 on, MindSpore's filters larger than 1x1 run oneDNN's reference code on CPU, twenty times slower."""
    return tuple(int(part) for part in ms.__version__.split(".")[:2]) >= (2, 9)
