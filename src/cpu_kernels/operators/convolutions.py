"""Operators of convolutional networks, on maps (N, C, H, W)."""

from __future__ import annotations

from src.cpu_kernels.declaration import Argument, Gradient, Operator, scalars
from src.cpu_kernels.operators.arguments import MAP, NORM, SAME, STATISTICS, STRIDED, STRIDES

ACTIVATIONS: dict[str, dict[str, int]] = {"Linear": {}, "ReLU": {}, "ReLU6": {}}

OPERATORS = (
    Operator(
        "Depthwise",
        "Depthwise 3x3 convolution with a border of one pixel.",
        inputs=(MAP, Argument("weight", "c 1 3 3", "one filter per channel")),
        outputs=(Argument("y", "n c out_h out_w", "the result"),),
        derived=STRIDED,
        variants=STRIDES,
        gradient=Gradient(reads="x weight dy", of="x weight"),
    ),
    Operator(
        "Pointwise",
        "1x1 convolution.",
        inputs=(MAP, Argument("weight", "out c 1 1", "a matrix")),
        outputs=(Argument("y", "n out h w", "the result"),),
        gradient=Gradient(reads="x weight dy", of="x weight"),
    ),
    Operator(
        "Conv",
        "Dense convolution with a filter of equal sides, and bias.",
        inputs=(
            MAP,
            Argument("weight", "out c kernel kernel", "filters"),
            Argument("bias", "out", "what is added to each output channel"),
            scalars("settings", "stride padding", "pixels between two positions of the filter; width of the border"),
        ),
        outputs=(Argument("y", "n out out_h out_w", "the result"),),
        derived={
            "out_h": "(h + 2 * padding - kernel) // stride + 1",
            "out_w": "(w + 2 * padding - kernel) // stride + 1",
        },
        rules=("stride >= 1", "kernel <= h + 2 * padding", "kernel <= w + 2 * padding"),
        gradient=Gradient(reads="x weight settings dy", of="x weight bias"),
    ),
    Operator(
        "BatchNormTrain",
        "Batch normalisation by the batch's statistics, then the activation.",
        inputs=NORM,
        outputs=(SAME, *STATISTICS),
        variants=ACTIVATIONS,
        gradient=Gradient(reads="x gamma beta mean inverse_std dy", of="x gamma beta"),
    ),
    Operator(
        "BatchNormInfer",
        "Batch normalisation by the moving statistics, then the activation.",
        inputs=NORM,
        outputs=(SAME,),
        variants=ACTIVATIONS,
        gradient=Gradient(reads="x gamma beta moving_mean moving_variance settings dy", of="x gamma beta"),
    ),
    Operator(
        "NormDepthwise",
        "BatchNormTrain with ReLU6, then Depthwise; what lies between is never stored.",
        inputs=(*NORM, Argument("weight", "c 1 3 3", "one filter per channel")),
        outputs=(Argument("y", "n c out_h out_w", "the result"), *STATISTICS),
        derived=STRIDED,
        variants=STRIDES,
        gradient=Gradient(reads="x gamma beta mean inverse_std weight dy", of="x gamma beta weight"),
    ),
)
