"""MobileNetV2's block as one operator, channels last, and what changes the layout."""

from __future__ import annotations

from src.cpu_kernels.declaration import Argument, Gradient, Operator, scalars
from src.cpu_kernels.operators.arguments import MAP, STATISTICS, STRIDED

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
BLOCK = (
    LAST,
    Argument("expand", "e c 1 1", "weights of the expansion"),
    Argument("filter", "e 1 3 3", "one filter per channel"),
    Argument("project", "out e 1 1", "weights of the projection"),
    *NORMS,
    scalars("settings", "eps momentum", "as of BatchNormTrain"),
)
BLOCK_VARIANTS = {
    "S1": {"stride": 1, "shortcut": 0},
    "S1Sum": {"stride": 1, "shortcut": 1},
    "S2": {"stride": 2, "shortcut": 0},
}


def inverted_residual(name: str, dtype: str) -> Operator:
    """The block with its hidden maps, and the factors of its products, as `dtype`."""
    return Operator(
        name,
        "MobileNetV2's block in training: 1x1 expansion, 3x3 filter per channel, 1x1 projection, each normalised.",
        inputs=BLOCK,
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
        variants=BLOCK_VARIANTS,
        gradient=Gradient(
            reads="x expand filter project gamma1 beta1 gamma2 beta2 gamma3 centre spread mean1 inverse_std1 mean2 "
            "inverse_std2 mean3 inverse_std3 filtered projected dy",
            of="x expand filter project gamma1 beta1 gamma2 beta2 gamma3 beta3",
            working=(Argument("passed", "n out_h out_w e", "what the ReLU6 of the filter lets pass back", dtype),),
        ),
    )


OPERATORS = (
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
