"""Grids of whole numbers that tensors are rounded to. No MindSpore here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEAST_SCALE = float(np.finfo(np.float32).eps)  # as in PyTorch
BIAS_LIMIT = 2.0**30  # of an int32; an integer kernel adds the products to the bias


@dataclass(frozen=True)
class Grid:
    """Which whole numbers there are, and whether 0 is in their middle."""

    bits: int = 8
    symmetric: bool = False
    narrow: bool = False

    @property
    def low(self) -> int:
        return -(2 ** (self.bits - 1)) + int(self.narrow)

    @property
    def high(self) -> int:
        return 2 ** (self.bits - 1) - 1

    def numbers(self) -> tuple[float, float, bool]:
        """Arguments of `grid_over`."""
        return float(self.low), float(self.high), self.symmetric
