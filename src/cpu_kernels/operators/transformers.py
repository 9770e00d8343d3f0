"""Operators of SegFormer, on maps (N, C, H, W)."""

from __future__ import annotations

from src.cpu_kernels.declaration import Argument, Gradient, Operator, scalars
from src.cpu_kernels.operators.arguments import MAP, NORM, SAME

OPERATORS = (
    Operator(
        "Dense",
        "Dense layer on the channels of a map: weight x + bias.",
        inputs=(MAP, Argument("weight", "out c", "a matrix"), Argument("bias", "out", "what is added")),
        outputs=(Argument("y", "n out h w", "the result"),),
        gradient=Gradient(reads="x weight dy", of="x weight bias"),
    ),
    Operator(
        "DenseResidual",
        "Dense layer added to what it is a residual of: residual + keep * (weight x + bias).",
        inputs=(
            MAP,
            Argument("weight", "out c", "a matrix"),
            Argument("bias", "out", "what is added"),
            Argument("residual", "n out h w", "what the layer is added to"),
            Argument("keep", "n", "factor of the layer for each image; 0 drops it"),
        ),
        outputs=(Argument("y", "n out h w", "the result"),),
        gradient=Gradient(reads="x weight keep dy", of="x weight bias", passed="residual"),
    ),
    Operator(
        "ChannelNorm",
        "Layer normalisation of each pixel over its channels.",
        inputs=(*NORM[:3], scalars("eps", "eps", "what is added to the variance")),
        outputs=(
            SAME,
            Argument("mean", "n h w", "mean of each pixel"),
            Argument("inverse_std", "n h w", "1 / sqrt(variance of each pixel + eps)"),
        ),
        gradient=Gradient(reads="x gamma mean inverse_std dy", of="x gamma beta"),
    ),
    Operator(
        "Attention",
        "Softmax attention with h * w queries and key_h * key_w keys, per head of c / heads channels.",
        inputs=(
            Argument("q", "n c h w", "queries"),
            Argument("kv", "n 2*c key_h key_w", "keys, then values"),
            scalars("heads", "heads", "number of heads"),
        ),
        outputs=(
            Argument("y", "n c h w", "the result"),
            Argument("logs", "n heads h*w", "log2 of the sum of each query's exponentials"),
        ),
        rules=("heads >= 1", "c % heads == 0"),
        gradient=Gradient(reads="q kv heads y logs dy", of="q kv"),
    ),
    Operator(
        "DepthwiseGelu",
        "Depthwise 3x3 convolution with stride 1 and bias, then the exact GELU.",
        inputs=(
            MAP,
            Argument("weight", "c 1 3 3", "one filter per channel"),
            Argument("bias", "c", "what is added to each channel"),
        ),
        outputs=(SAME,),
        gradient=Gradient(reads="x weight bias dy", of="x weight bias"),
    ),
    Operator(
        "ResizeSum",
        "The sum of four maps, resized bilinearly to the size of the first.",
        inputs=(
            Argument("first", "n c h w", "a map"),
            Argument("second", "n c h2 w2", "a map"),
            Argument("third", "n c h3 w3", "a map"),
            Argument("fourth", "n c h4 w4", "a map"),
        ),
        outputs=(SAME,),
        gradient=Gradient(reads="first second third fourth dy", of="second third fourth", passed="first"),
    ),
    Operator(
        "PixelLoss",
        "Cross entropy of logits that are resized bilinearly to the labels; mean over the pixels, weighted by class.",
        inputs=(
            Argument("logits", "n classes h w", "logits"),
            Argument("label", "n height width", "class of each pixel", dtype="int32"),
            Argument("weights", "classes", "weight of each class"),
            scalars("ignore", "ignore", "label of pixels that do not count"),
        ),
        outputs=(
            Argument("loss", "1", "the loss"),
            Argument("dlogits", "n classes h w", "gradient of the loss"),
        ),
        gradient=Gradient(ready={"logits": "dlogits"}),
    ),
)
