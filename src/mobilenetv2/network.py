"""MobileNetV2 (https://arxiv.org/abs/1801.04381): blocks, backbone, head and the whole network, in reading order.

Shapes: N images, C channels, H x W pixels, K classes. Strides take H and W down to 1 / output_stride, rounded up.
"""

import math

import numpy as np
from mindspore import Tensor, float32, nn, ops

# Table 2 of the paper: expansion t, output channels c, repeats n, stride of the first repeat s.
INVERTED_RESIDUALS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
STEM_CHANNELS, STEM_STRIDE = 32, 2
LAST_CHANNELS = 1280
BN_EPS = 1e-5
BN_MOMENTUM = 0.9  # share of the old moving average that is kept; PyTorch writes the same thing as 0.1


def scaled_channels(channels: int, width_mult: float, divisor: int = 8) -> int:
    """Scale a channel count, rounded to a multiple of `divisor` that is never more than 10 % too small."""
    wanted = channels * width_mult
    rounded = max(divisor, int(wanted + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * wanted else rounded


def conv_bn(in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Cell]:
    """Convolution without bias that keeps H and W (up to the stride), followed by batch normalisation."""
    padding = (kernel - 1) // 2
    return [
        nn.Conv2d(
            in_channels, out_channels, kernel, stride, pad_mode="pad", padding=padding, group=groups, has_bias=False
        ),
        nn.BatchNorm2d(out_channels, eps=BN_EPS, momentum=BN_MOMENTUM),
    ]


class ConvBNReLU6(nn.SequentialCell):
    """(N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1):
        super().__init__([*conv_bn(in_channels, out_channels, kernel, stride, groups), nn.ReLU6()])


class InvertedResidual(nn.Cell):
    """Expand by 1x1, filter each channel by 3x3, project by 1x1 without activation; `shortcut` where shapes allow."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int, shortcut: bool = True):
        super().__init__()
        hidden = in_channels * expansion
        expand = [ConvBNReLU6(in_channels, hidden, kernel=1)] if expansion != 1 else []
        self.conv = nn.SequentialCell(
            [
                *expand,
                ConvBNReLU6(hidden, hidden, kernel=3, stride=stride, groups=hidden),
                *conv_bn(hidden, out_channels, kernel=1),
            ]
        )
        self.has_shortcut = shortcut and stride == 1 and in_channels == out_channels

    def construct(self, x: Tensor) -> Tensor:
        out = self.conv(x)
        return x + out if self.has_shortcut else out


def first_strides(output_stride: int) -> list[int]:
    """The strides of stem and table rows whose product is `output_stride`: of the paper, the first ones made 1."""
    strides = [STEM_STRIDE, *(stride for _, _, _, stride in INVERTED_RESIDUALS)]
    for place in range(len(strides)):
        if math.prod(strides) > output_stride:
            strides[place] = 1
    return strides


def blocks(output_stride: int) -> list[tuple[int, int, int, bool]]:
    """Expansion, output channels at width 1.0, stride, and whether a shortcut is wanted, of every inverted residual."""
    found = []
    for (expansion, channels, repeats, paper_stride), first_stride in zip(
        INVERTED_RESIDUALS, first_strides(output_stride)[1:]
    ):
        # The same blocks have a shortcut at every output stride.
        found.append((expansion, channels, first_stride, paper_stride == 1))
        found += [(expansion, channels, 1, True)] * (repeats - 1)
    return found


class Backbone(nn.Cell):
    """Image (N, 3, H, W) -> feature map (N, out_channels, H / output_stride, W / output_stride)."""

    def __init__(self, width_mult: float = 1.0, output_stride: int = 32):
        super().__init__()
        channels = scaled_channels(STEM_CHANNELS, width_mult)
        layers = [ConvBNReLU6(3, channels, kernel=3, stride=first_strides(output_stride)[0])]
        for expansion, base_channels, stride, shortcut in blocks(output_stride):
            out_channels = scaled_channels(base_channels, width_mult)
            layers.append(InvertedResidual(channels, out_channels, stride, expansion, shortcut))
            channels = out_channels
        self.out_channels = scaled_channels(LAST_CHANNELS, max(1.0, width_mult))
        layers.append(ConvBNReLU6(channels, self.out_channels, kernel=1))
        self.features = nn.SequentialCell(layers)

    def construct(self, image: Tensor) -> Tensor:
        return self.features(image)


class Head(nn.Cell):
    """Feature map (N, C, h, w), or pooled features (N, C), -> logits (N, K), float32 in mixed precision too."""

    def __init__(self, in_channels: int, num_classes: int):
        super().__init__()
        self.dense = nn.Dense(in_channels, num_classes)

    def construct(self, features: Tensor, keep: Tensor = None) -> Tensor:
        if features.ndim == 4:
            features = features.astype(float32).mean((2, 3))  # (N, C, h, w) -> (N, C)
        if keep is not None:
            features = features * keep
        return self.dense(features).astype(float32)


class MobileNetV2(nn.Cell):
    """The whole classifier; 3,504,872 parameters at width 1.0 and 1000 classes.

    `keep` is dropout's mask, (N, C), already divided by the share that is kept. It is an argument because it belongs to
    the data order: a resumed run draws the mask it would have drawn. `activation` ("None", "Sigmoid", "Softmax") turns
    logits into scores in exported files.
    """

    def __init__(self, num_classes: int, width_mult: float = 1.0, activation: str = "None", output_stride: int = 32):
        super().__init__()
        self.backbone = Backbone(width_mult, output_stride)
        self.head = Head(self.backbone.out_channels, num_classes)
        self.activation = activation

    def construct(self, image: Tensor, keep: Tensor = None) -> Tensor:
        logits = self.head(self.backbone(image), keep)
        if self.activation == "Softmax":
            return ops.softmax(logits, 1)
        return ops.sigmoid(logits) if self.activation == "Sigmoid" else logits


def init_weights(net: nn.Cell, seed: int) -> None:
    """Draw all weights anew from `seed`: convolutions N(0, 2 / (k * k * C_out)), classifier N(0, 0.01), BN 1 and 0."""
    rng = np.random.default_rng(seed)
    for cell in net.cells_and_names():
        cell = cell[1]
        if isinstance(cell, nn.Conv2d):
            out_channels, _, height, width = cell.weight.shape
            deviation = math.sqrt(2.0 / (height * width * out_channels))
            cell.weight.set_data(Tensor(rng.normal(0, deviation, cell.weight.shape).astype(np.float32)))
        elif isinstance(cell, nn.Dense):
            cell.weight.set_data(Tensor(rng.normal(0, 0.01, cell.weight.shape).astype(np.float32)))
            cell.bias.set_data(Tensor(np.zeros(cell.bias.shape, np.float32)))


def build(
    num_classes: int, width_mult: float, seed: int, activation: str = "None", output_stride: int = 32
) -> MobileNetV2:
    """A network with fresh weights; training, evaluation and export all start here."""
    net = MobileNetV2(num_classes, width_mult, activation, output_stride)
    init_weights(net, seed)
    return net
