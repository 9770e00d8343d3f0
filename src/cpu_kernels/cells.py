"""Cells that run the compiled kernels, each with the Parameters of the stock cell that it replaces. Platform CPU only.

The cells hold custom operators, so export a freshly built network rather than one with these.
Shapes: N images, C channels, H x W pixels.
"""

from __future__ import annotations

from pathlib import Path

import mindspore as ms
from mindspore import Tensor, nn, ops

from src.cpu_kernels.custom import custom_operator, settings


class DepthwiseConv3x3(nn.Cell):
    """(N, C, H, W) -> (N, C, ceil(H / stride), ceil(W / stride)), with the Parameters of `conv`."""

    def __init__(self, conv: nn.Conv2d, library: Path):
        super().__init__()
        self.weight = conv.weight
        self.bias = conv.bias if conv.has_bias else None
        self.stride = conv.stride[0]
        self.operator = custom_operator(library, "Depthwise", f"S{self.stride}")

    def construct(self, x: Tensor) -> Tensor:
        out = self.operator(x, self.weight)
        return out if self.bias is None else ops.bias_add(out, self.bias)


class PointwiseConv(nn.Cell):
    """(N, C_in, H, W) -> (N, C_out, H, W), with the Parameters of the 1x1 convolution `conv`."""

    def __init__(self, conv: nn.Conv2d, library: Path):
        super().__init__()
        self.weight = conv.weight
        self.bias = conv.bias if conv.has_bias else None
        self.operator = custom_operator(library, "Pointwise")

    def construct(self, x: Tensor) -> Tensor:
        out = self.operator(x, self.weight)
        return out if self.bias is None else ops.bias_add(out, self.bias)


class Conv(nn.Cell):
    """(N, C_in, H, W) -> (N, C_out, h, w), with the Parameters of `conv`, whose filter has equal sides."""

    def __init__(self, conv: nn.Conv2d, library: Path):
        super().__init__(auto_prefix=False)
        self.weight = conv.weight
        self.bias = conv.bias if conv.has_bias else Tensor([0.0] * conv.out_channels, ms.float32)
        padding = conv.padding if isinstance(conv.padding, int) else conv.padding[0]
        numbers = {"stride": conv.stride[0], "padding": padding if conv.pad_mode == "pad" else 0}
        self.settings = settings("Conv", **numbers)
        self.operator = custom_operator(library, "Conv", **numbers)

    def construct(self, x: Tensor) -> Tensor:
        return self.operator(x, self.weight, self.bias, self.settings)


class NormDepthwise(nn.Cell):
    """(N, C, H, W) -> (N, C, ceil(H / stride), ceil(W / stride)): `norm` with ReLU6, then `conv`.

    In training with the batch's statistics what lies between the two is never stored.
    """

    def __init__(self, norm: FusedBatchNorm, conv: DepthwiseConv3x3, library: Path):
        super().__init__(auto_prefix=False)
        self.norm, self.conv = norm, conv
        self.operator = custom_operator(library, "NormDepthwise", f"S{conv.stride}")

    def construct(self, x: Tensor) -> Tensor:
        norm = self.norm
        if not norm.uses_batch():
            return self.conv(norm(x))
        outputs = self.operator(
            x, norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance, norm.settings, self.conv.weight
        )
        ops.assign(norm.moving_mean, outputs[3])
        ops.assign(norm.moving_variance, outputs[4])
        return outputs[0]


class FusedBatchNorm(nn.Cell):
    """(N, C, H, W) -> same shape: `norm` with its own Parameters, then `activation` ("Linear", "ReLU", "ReLU6")."""

    def __init__(self, norm: nn.BatchNorm2d, library: Path, activation: str = "Linear"):
        super().__init__()
        # The order of nn.BatchNorm2d, so that parameters are listed in the same order as before.
        self.moving_mean = norm.moving_mean
        self.moving_variance = norm.moving_variance
        self.gamma = norm.gamma
        self.beta = norm.beta
        self.use_batch_statistics = norm.use_batch_statistics
        # nn.BatchNorm2d stores the weight of the new value; the kernels want that of the old one.
        self.settings = settings("BatchNormTrain", eps=norm.eps, momentum=1.0 - norm.momentum)
        self.activation = activation
        self.train_operator = custom_operator(library, "BatchNormTrain", activation)
        self.infer_operator = custom_operator(library, "BatchNormInfer", activation)

    def uses_batch(self) -> bool:
        """Whether the batch's statistics normalise, rather than the moving ones."""
        return self.training if self.use_batch_statistics is None else self.use_batch_statistics

    def construct(self, x: Tensor) -> Tensor:
        if not self.uses_batch():
            return self.infer_operator(x, self.gamma, self.beta, self.moving_mean, self.moving_variance, self.settings)
        # Indices instead of unpacking: graph mode warns about every output that is unpacked and not used.
        outputs = self.train_operator(x, self.gamma, self.beta, self.moving_mean, self.moving_variance, self.settings)
        ops.assign(self.moving_mean, outputs[3])
        ops.assign(self.moving_variance, outputs[4])
        return outputs[0]
