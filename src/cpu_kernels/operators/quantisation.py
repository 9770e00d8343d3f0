"""Operators of quantised networks."""

from __future__ import annotations

from src.cpu_kernels.declaration import Argument, Gradient, Operator, scalars

PER_CHANNEL_OR_ONE = ("rows == 1 or rows == c",)
FILTERS = Argument("weight", "c *rest", "one filter per output channel")
TENSOR = Argument("x", "c *rest", "a tensor; c is its first side")

OPERATORS = (
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
