"""Weights without batch normalisation, and as whole numbers on a grid. No MindSpore here."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from src.quantisation.grid import BIAS_LIMIT, LEAST_SCALE, Grid


@dataclass(frozen=True)
class Folded:
    """A layer without BN: weight (C_out, ...) and bias (C_out,) float32."""

    name: str
    weight: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True)
class FoldedOnGrid(Folded):
    """One whose weight is quantised: `whole` is it as int8, on the grid of `scale` (R,) and `zero_point` (R,)."""

    scale: np.ndarray
    zero_point: np.ndarray
    whole: np.ndarray
    grid: Grid

    def on_grid(self) -> np.ndarray:
        """The quantised weight as float32."""
        shape = (-1,) + (1,) * (self.weight.ndim - 1)
        return (self.whole.astype(np.float32) - self.zero_point.reshape(shape)) * self.scale.reshape(shape)

    def with_room_for_bias(self, input_scale: np.floating) -> tuple[FoldedOnGrid, int]:
        """The same with coarser weights in channels whose bias would not fit into an int32 of the sums' scale.

        And the number of such channels: only those are like that whose weights are next to nothing beside their bias.
        """
        needed = np.abs(self.bias) / (input_scale * np.float32(BIAS_LIMIT))
        scale = np.maximum(self.scale, needed if len(self.scale) > 1 else needed.max(keepdims=True))
        changed = int((scale != self.scale).sum())
        if not changed:
            return self, 0
        return replace(self, scale=scale, whole=quantised(self.weight, scale, self.zero_point, self.grid)), changed


def quantised(weight: np.ndarray, scale: np.ndarray, zero_point: np.ndarray, grid: Grid) -> np.ndarray:
    """Weight (C_out, ...) float32 -> int8, by the arithmetic of quantiser.Snap."""
    shape = (-1,) + (1,) * (weight.ndim - 1)
    whole = np.rint(weight / scale.reshape(shape)) + zero_point.reshape(shape)
    return np.clip(whole, grid.low, grid.high).astype(np.int8)


def whole_bias(bias: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Bias (C_out,) float32 as multiples of `scale` (R,), by the arithmetic of integer_cells.IntConv."""
    return np.rint(bias / scale).astype(np.int32)


def per_channel(name: str, weight: np.ndarray, bias: np.ndarray, grid: Grid) -> FoldedOnGrid:
    """A layer's weight (C_out, ...) on symmetric grids of its channels, by the arithmetic of quantiser.grid_over."""
    reach = np.abs(weight.reshape(len(weight), -1)).max(1).astype(np.float32)
    scale = np.maximum(reach * np.float32(2.0) / np.float32(grid.high - grid.low), np.float32(LEAST_SCALE))
    zero_point = np.zeros(len(scale), np.float32)
    return FoldedOnGrid(name, weight, bias, scale, zero_point, quantised(weight, scale, zero_point, grid), grid)
