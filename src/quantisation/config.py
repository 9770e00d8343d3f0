"""Keys of quantisation that several models have. No MindSpore here."""

from __future__ import annotations

from dataclasses import dataclass

from src.engine.config import option

TRAIN = ("train",)
METHODS = ("minmax", "percentile", "mse", "entropy")  # of ranges.py


@dataclass(frozen=True)
class Quantisation:
    """How the ranges of activations are found."""

    range_decay: float = option("share of the old activation range that a step keeps", 0.999, low=0, below=1)
    calibration_batches: int = option(
        "batches that give the activation ranges before training starts, unless a quantised checkpoint does",
        8,
        low=1,
        read_by=TRAIN,
    )
    calibration_method: str = option(
        "ranges from the batches' extremes, or drawn in to hold 99.99 % of the values, to their least squared error or "
        "to the least divergence of their distribution",
        "minmax",
        choices=METHODS,
        read_by=TRAIN,
    )
    calibrate_only: int = option(
        "train.py: take the ranges from so many batches and train nothing, 0 is off", 0, low=0, read_by=TRAIN
    )


@dataclass(frozen=True)
class Export:
    """The report that is written beside the exported file."""

    report_path: str = option("export: report per layer as FILE.csv and FILE.png; empty puts it beside the file", "")
    report_images: int = option("export: images that the report measures noise on", 8, low=1)
