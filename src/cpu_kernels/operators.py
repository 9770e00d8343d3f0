"""The table of the CPU kernels: inputs, outputs, shapes and gradient of every operator.

From it follow the MindSpore operator with its inference and its gradient (custom.py), and in C++ the structure of an
operator's named arguments with their check (header.py). A new kernel is one entry here and one file in native/ that
exports <name><variant>, and <name>Backward<variant> if the gradient reads anything.
N images, C channels, H x W pixels.
"""

from __future__ import annotations

from src.cpu_kernels.declaration import Argument, Gradient, Operator, scalars, tensors

MAP = Argument("x", "n c h w", "the input")
SAME = Argument("y", "n c h w", "the result")
STRIDES = {"S1": {"stride": 1}, "S2": {"stride": 2}}
STRIDED = {"out_h": "(h - 1) // stride + 1", "out_w": "(w - 1) // stride + 1"}
ACTIVATIONS: dict[str, dict[str, int]] = {"Linear": {}, "ReLU": {}, "ReLU6": {}}
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
PER_CHANNEL_OR_ONE = ("rows == 1 or rows == c",)
FILTERS = Argument("weight", "c *rest", "one filter per output channel")
TENSOR = Argument("x", "c *rest", "a tensor; c is its first side")

FOR_CONVOLUTIONAL_NETWORKS = (
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

NORMS = tuple(
    Argument(f"{name}{place}", side, f"{meaning}, of the normalisation after {layer}")
    for place, side, layer in ((1, "e", "the expansion"), (2, "e", "the filter"), (3, "out", "the projection"))
    for name, meaning in (
        ("gamma", "factor"),
        ("beta", "shift"),
        ("moving_mean", "moving average of the mean"),
        ("moving_variance", "moving average of the unbiased variance"),
    )
)
BLOCK_STATISTICS = tuple(
    Argument(f"{argument.name}{place}", side, argument.meaning)
    for place, side in ((1, "e"), (2, "e"), (3, "out"))
    for argument in STATISTICS
)
LAST = Argument("x", "n h w c", "the input, channels last")


def inverted_residual(name: str, dtype: str) -> Operator:
    """The block with its hidden maps, and the factors of its products, as `dtype`."""
    return Operator(
        name,
        "MobileNetV2's block in training: 1x1 expansion, 3x3 filter per channel, 1x1 projection, each normalised.",
        inputs=(
            LAST,
            Argument("expand", "e c 1 1", "weights of the expansion"),
            Argument("filter", "e 1 3 3", "one filter per channel"),
            Argument("project", "out e 1 1", "weights of the projection"),
            *NORMS,
            scalars("settings", "eps momentum", "as of BatchNormTrain"),
        ),
        outputs=(
            Argument("y", "n out_h out_w out", "the result"),
            Argument("filtered", "n out_h out_w e", "what the filters give, before its normalisation", dtype),
            Argument("projected", "n out_h out_w out", "what the projection gives, before its normalisation"),
            Argument("centre", "c", "mean of the input"),
            Argument("spread", "c e", "covariance of the input and the expansion"),
            *BLOCK_STATISTICS,
        ),
        derived=STRIDED,
        rules=("e % 16 == 0", "shortcut == 0 or c == out"),
        variants={
            "S1": {"stride": 1, "shortcut": 0},
            "S1Sum": {"stride": 1, "shortcut": 1},
            "S2": {"stride": 2, "shortcut": 0},
        },
        gradient=Gradient(
            reads="x expand filter project gamma1 beta1 gamma2 beta2 gamma3 centre spread mean1 inverse_std1 mean2 "
            "inverse_std2 mean3 inverse_std3 filtered projected dy",
            of="x expand filter project gamma1 beta1 gamma2 beta2 gamma3 beta3",
            working=(Argument("passed", "n out_h out_w e", "what the ReLU6 of the filter lets pass back", dtype),),
        ),
    )


FOR_INVERTED_RESIDUALS = (
    Operator(
        "ChannelsLast",
        "From (N, C, H, W) to (N, H, W, C).",
        inputs=(MAP,),
        outputs=(Argument("y", "n h w c", "the result"),),
        gradient=Gradient(reads="dy", of="x"),
    ),
    Operator(
        "ChannelsFirst",
        "From (N, H, W, C) to (N, C, H, W).",
        inputs=(LAST,),
        outputs=(Argument("y", "n c h w", "the result"),),
        gradient=Gradient(reads="dy", of="x"),
    ),
    inverted_residual("InvertedResidual", "float32"),
    inverted_residual("InvertedResidualBfloat16", "bfloat16"),
)

FOR_TRANSFORMERS = (
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

FOR_QUANTISATION = (
    Operator(
        "FakeQuant",
        "x on the grid (q - zero_point) * scale with whole q from low to high; a row shares one scale.",
        inputs=(
            TENSOR,
            Argument("scale", "rows", "step of the grid, per first side or one for all"),
            Argument("zero_point", "rows", "whole number that stands for 0"),
            scalars("limits", "low high", "least and greatest q"),
        ),
        outputs=(Argument("y", "c *rest", "x on the grid"), Argument("extremes", "2", "least and greatest x")),
        rules=PER_CHANNEL_OR_ONE,
        gradient=Gradient(reads="x scale zero_point limits dy", of="x scale"),
    ),
    Operator(
        "RangeFakeQuant",
        "x on the grid that spans a range, and the range moved towards that of x.",
        inputs=(
            TENSOR,
            scalars("range", "least greatest", "the range"),
            scalars("settings", "low high symmetric decay", "limits of q; zero point 0; what stays of the range"),
        ),
        outputs=(
            Argument("y", "c *rest", "x on the grid"),
            Argument("new_range", "2", "the moved range"),
            Argument("scale", "1", "step of the grid"),
            Argument("zero_point", "1", "whole number that stands for 0"),
        ),
        gradient=Gradient(reads="x settings scale zero_point dy", of="x"),
    ),
    Operator(
        "FoldedFakeQuant",
        "(weight * factor on the grids that span it) / factor, with the factor gamma / std of the normalisation after.",
        inputs=(
            FILTERS,
            Argument("gamma", "c", "factor of the normalisation"),
            Argument("variance", "c", "moving variance"),
            scalars("settings", "low high symmetric per_channel eps", "limits of q; zero point 0; a grid per channel"),
        ),
        outputs=(Argument("y", "c *rest", "the weight"), Argument("inverse_std", "c", "1 / sqrt(variance + eps)")),
        gradient=Gradient(reads="weight gamma inverse_std settings dy", of="weight gamma"),
    ),
    Operator(
        "IntFilters",
        "What an integer kernel is given: weight and bias with the normalisation folded in, as whole numbers.",
        inputs=(
            FILTERS,
            Argument("gamma", "c", "factor of the normalisation"),
            Argument("beta", "c", "shift of the normalisation"),
            Argument("moving_mean", "c", "moving mean"),
            Argument("moving_variance", "c", "moving variance"),
            Argument("learned_scale", "rows", "steps that were trained, if `learned`"),
            scalars("source_scale", "source_scale", "step of the input's grid"),
            scalars("target_scale", "target_scale", "step of the output's grid"),
            scalars("settings", "low high symmetric per_channel eps learned", "as of FoldedFakeQuant"),
        ),
        outputs=(
            Argument("int_weight", "c *rest", "whole weights less their zero points"),
            Argument("int_bias", "c", "whole bias"),
            Argument("factor", "c", "by what the sums are multiplied for the output's grid"),
        ),
        rules=PER_CHANNEL_OR_ONE,
    ),
    Operator(
        "IntRequantise",
        "(x + bias) * factor as the nearest whole number within the limits.",
        inputs=(
            Argument("x", "n c *rest", "sums of an integer convolution"),
            Argument("bias", "c", "whole bias"),
            Argument("factor", "c", "scale of the sums over that of the output"),
            scalars("limits", "least greatest", "limits of the result"),
        ),
        outputs=(Argument("y", "n c *rest", "the result"),),
    ),
    Operator(
        "IntSum",
        "a + b on the grid of the sum, less its zero point; a ratio is a scale over that of the sum.",
        inputs=(
            Argument("a", "c *rest", "q - zero point"),
            Argument("b", "c *rest", "q - zero point"),
            scalars("settings", "zero_a zero_b ratio_a ratio_b zero low high", "zero points, ratios, limits of q"),
        ),
        outputs=(Argument("y", "c *rest", "q - zero"),),
    ),
)

FOR_OPTIMIZERS = (
    Operator(
        "MomentumUpdate",
        "moment = momentum * moment + gradient + decay * weight, then weight -= learning_rate * moment.",
        inputs=(
            Argument("learning_rate", "", "by what the step is multiplied"),
            Argument("momentum", "", "what stays of the moments"),
            Argument("decays", "entries", "decay of each weight"),
            tensors("weight", "what is trained", written=True),
            tensors("moment", "the moments", written=True),
            tensors("gradient", "gradients of the weights"),
        ),
        outputs=(Argument("done", "1", "1 when all is written"),),
    ),
    Operator(
        "MovingAverage",
        "average = decay * average + (1 - decay) * value.",
        inputs=(
            scalars("settings", "decay", "what stays of the average"),
            tensors("average", "the moving averages", written=True),
            tensors("value", "what they follow"),
        ),
        outputs=(Argument("done", "1", "1 when all is written"),),
    ),
)

OPERATORS = {
    entry.name: entry
    for entry in (
        *FOR_CONVOLUTIONAL_NETWORKS,
        *FOR_INVERTED_RESIDUALS,
        *FOR_TRANSFORMERS,
        *FOR_QUANTISATION,
        *FOR_OPTIMIZERS,
    )
}
