"""Keys of quantisation that several models have. No MindSpore here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from src.engine.config import option
from src.engine.errors import UsageError, ZooError

TRAIN = ("train",)
TENSORRT = "tensorrt"
METHODS = ("minmax", "percentile", "mse", "entropy")  # of ranges.py


@dataclass(frozen=True)
class Quantisation:
    """How the ranges of activations are found."""

    activation_symmetric: bool = option(
        "activations: zero point 0 in the middle of the grid, as TensorRT and some other processors ask for", False
    )
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
    quant_freeze_ranges: int = option(
        "steps after which activation ranges stay as they are; 0 keeps the calibrated ones",
        10_000_000,
        low=0,
        read_by=TRAIN,
    )
    calibrate_only: int = option(
        "train.py: take the ranges from so many batches and train nothing, 0 is off", 0, low=0, read_by=TRAIN
    )
    bias_correction: bool = option(
        "with calibrate_only: take off each layer's results what its rounded weights add to them in the mean",
        False,
        read_by=TRAIN,
    )

    @property
    def corrects_biases(self) -> bool:
        """Whether biases are corrected; a training does that itself."""
        return bool(self.calibrate_only) and self.bias_correction

    def require_float_start(self, path: Path, is_quantised: bool) -> None:
        """Raise ZooError where biases would be corrected that fit rounded weights already."""
        if self.corrects_biases and is_quantised:
            raise ZooError(
                f"{path} is quantised, and its biases fit its rounded weights already; "
                "give the float checkpoint, or leave bias_correction out"
            )


@dataclass(frozen=True)
class Export:
    """What an exported file of integers is for, and the report that is written beside it."""

    onnx_target: str = option(
        "export: what runs the ONNX file; onnxruntime and openvino read the same one, tensorrt wants int8 with zero "
        "point 0 (activation_symmetric True) and biases in float",
        "onnxruntime",
        choices=("onnxruntime", "openvino", TENSORRT),
    )
    report_path: str = option("export: report per layer as FILE.csv and FILE.png; empty puts it beside the file", "")
    report_images: int = option("export: images that the report measures noise on", 8, low=1)

    def require_target(self, symmetric: bool) -> None:
        """Raise UsageError where the activations are not on the grids that onnx_target asks for."""
        if self.onnx_target == TENSORRT and not symmetric:
            raise UsageError(
                "onnx_target is tensorrt, which knows zero point 0 only, and activation_symmetric False; "
                "calibrate or train with --activation_symmetric True and export that"
            )
