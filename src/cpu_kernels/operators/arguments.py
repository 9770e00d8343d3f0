"""Arguments and sides that several operators have."""

from __future__ import annotations

from src.cpu_kernels.declaration import Argument, scalars

MAP = Argument("x", "n c h w", "the input")
SAME = Argument("y", "n c h w", "the result")
STRIDES = {"S1": {"stride": 1}, "S2": {"stride": 2}}
STRIDED = {"out_h": "(h - 1) // stride + 1", "out_w": "(w - 1) // stride + 1"}
NORM = (
    MAP,
    Argument("gamma", "c", "factor after the normalisation"),
    Argument("beta", "c", "shift after the normalisation"),
    Argument("moving_mean", "c", "moving average of the mean"),
    Argument("moving_variance", "c", "moving average of the unbiased variance"),
    scalars("settings", "eps momentum", "what is added to the variance; the part of the moving averages that stays"),
)
STATISTICS = (
    Argument("mean", "c", "mean of the batch"),
    Argument("inverse_std", "c", "1 / sqrt(variance of the batch + eps)"),
    Argument("new_mean", "c", "moved average of the mean"),
    Argument("new_variance", "c", "moved average of the variance"),
)
