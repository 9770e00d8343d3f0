"""MobileNetV2-quant: the float network of src.mobilenetv2 with overrides, and nothing else.

Every convolution quantises its weight as it will be after BN is folded in, and every tensor that an integer kernel
reads is put on a grid: the image, what follows each BN (and ReLU6), each sum of a shortcut, and the pooled features.
Parameters of the float network keep their names and shapes, so float checkpoints load; quantisers add a few more.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mindspore import Tensor, nn, ops

from src.cpu_kernels import availability, rewrite
from src.engine.errors import UsageError
from src.mobilenetv2 import network
from src.mobilenetv2_quant import integer_cells
from src.mobilenetv2_quant.config import Config
from src.quantisation.bias_correction import Corrected
from src.quantisation.quantiser import (
    ActivationQuantiser,
    Grid,
    LearnedActivationQuantiser,
    LearnedWeightQuantiser,
    WeightQuantiser,
    fold_factor,
)

FIRST, LAST = "backbone.features.0", "head.dense"
ACTIVATION_QUANTISERS = (ActivationQuantiser, LearnedActivationQuantiser)


class Quantisers:
    """Makes the quantisers of one network; `float_layers` are the layers that get none."""

    def __init__(self, cfg: Config, library: Path | None):
        self.cfg, self.library = cfg, library
        self.weights = Grid(cfg.weight_bits, cfg.weight_symmetric, cfg.weight_narrow_range)
        self.activations = Grid(cfg.activation_bits, cfg.activation_symmetric, cfg.activation_narrow_range)
        self.float_layers = {{"first": FIRST, "last": LAST}.get(name, name) for name in cfg.skipped()}

    def activation(self, name: str, after_relu6: bool = False) -> nn.Cell:
        decay = self.cfg.range_decay
        if self.cfg.quant_method == "lsq":
            return LearnedActivationQuantiser(name, self.activations, decay, after_relu6, self.library)
        return ActivationQuantiser(name, self.activations, decay, self.library)

    def weight(self, layer: str, channels: int) -> nn.Cell | None:
        if layer in self.float_layers:
            return None
        name, per_channel = f"{layer}.weight", self.cfg.weight_per_channel
        if self.cfg.quant_method == "lsq":
            return LearnedWeightQuantiser(name, self.weights, channels if per_channel else 1, self.library)
        return WeightQuantiser(name, self.weights, per_channel, self.library)


class QuantConv(Corrected):
    """A convolution whose weight is quantised with the BN that follows folded in: FQ(w * s) / s, s = gamma / std.

    BN then multiplies by s again, so with moving statistics the two are a convolution with FQ(w * s) and a bias, and in
    training BN sees its batch as it would in the float network (arXiv 1806.08342, section 3.2.2).
    """

    def __init__(self, name: str, conv: nn.Cell, norm: nn.Cell, quantiser: nn.Cell | None):
        super().__init__(norm.gamma.shape[0])
        self.name, self.conv = name, conv
        self.weight, self.gamma, self.beta = conv.weight, norm.gamma, norm.beta
        self.moving_mean, self.moving_variance = norm.moving_mean, norm.moving_variance
        self.quantiser = quantiser
        self.quantising, self.delayed = quantiser is not None, False
        self.convolve = conv.conv2d if isinstance(conv, nn.Conv2d) else conv.operator

    def folded_weight(self) -> Tensor:
        """w * s"""
        return self.weight * fold_factor(self.gamma, self.moving_variance)

    def folded_bias(self) -> Tensor:
        """beta - mean * s, (C_out,)"""
        return self.beta - self.moving_mean * fold_factor(self.gamma, self.moving_variance).reshape(-1)

    def construct(self, x: Tensor) -> Tensor:
        if self.quantiser is None or not self.quantising or (self.training and self.delayed):
            return self.convolve(x, self.weight)
        rounded = self.convolve(x, self.quantiser.through_fold(self.weight, self.gamma, self.moving_variance))
        return self.compared(self.convolve(x, self.weight), rounded, (0, 2, 3)) if self.correcting else rounded

    def move(self, shift: Tensor) -> None:
        ops.assign(self.moving_mean, self.moving_mean + shift)


class QuantDense(Corrected):
    """(N, C) -> (N, K) with a quantised weight; logits stay float."""

    def __init__(self, name: str, dense: nn.Dense, quantiser: nn.Cell | None):
        super().__init__(dense.bias.shape[0])
        self.name, self.weight, self.bias = name, dense.weight, dense.bias
        self.quantiser = quantiser
        self.quantising, self.delayed = quantiser is not None, False
        self.matmul = ops.MatMul(transpose_b=True)

    def folded_weight(self) -> Tensor:
        """The weight (K, C); there is no BN to fold in."""
        return self.weight

    def folded_bias(self) -> Tensor:
        """(K,)"""
        return self.bias

    def construct(self, x: Tensor) -> Tensor:
        if self.quantiser is None or not self.quantising or (self.training and self.delayed):
            return self.matmul(x, self.weight) + self.bias
        rounded = self.matmul(x, self.quantiser(self.weight)) + self.bias
        return self.compared(self.matmul(x, self.weight) + self.bias, rounded, (0,)) if self.correcting else rounded

    def move(self, shift: Tensor) -> None:
        ops.assign(self.bias, self.bias - shift)


class QuantSum(nn.Cell):
    """An inverted residual whose sum with the shortcut is quantised."""

    def __init__(self, block: network.InvertedResidual, quantiser: nn.Cell):
        super().__init__(auto_prefix=False)
        self.block, self.quantiser = block, quantiser

    def construct(self, x: Tensor) -> Tensor:
        return self.quantiser(self.block(x))


class QuantBackbone(nn.Cell):
    """Image (N, 3, H, W) -> pooled features (N, C), with the image and the features quantised (None: left float).

    `integer` computes the same in evaluation, on whole numbers; None without the compiled kernels.
    """

    def __init__(self, backbone: network.Backbone, image: nn.Cell | None, pooled: nn.Cell | None, library: Path | None):
        super().__init__(auto_prefix=False)
        self.features, self.out_channels = backbone.features, backbone.out_channels
        self.image, self.pooled = image, pooled
        self.integer = int_backbone(self, library) if library else None
        self.calibrating = False

    def construct(self, image: Tensor) -> Tensor:
        if self.integer is not None and not self.training and not self.calibrating:
            return self.integer(image)
        if self.image is not None:
            image = self.image(image)
        features = self.features(image).mean((2, 3))
        return features if self.pooled is None else self.pooled(features)


def build(num_classes: int, cfg: Config, kernels: str = "off", activation: str = "None") -> network.MobileNetV2:
    """The quantised network; training, evaluation and export all start here.

    `kernels` other than "off" is for platform CPU and not for export; see src.cpu_kernels.rewrite. With them,
    evaluation works on whole numbers, as the exported integer file does.
    """
    net = network.build(num_classes, cfg.width_mult, cfg.seed, activation, cfg.output_stride)
    library = availability.find_library(kernels)[0]
    if library:
        rewrite.accelerate(net, kernels, weights_vary=True)
    quantisers = Quantisers(cfg, library)
    for name, cell in list(net.backbone.features.cells_and_names()):
        if isinstance(cell, nn.SequentialCell):
            quantise_sequence(cell, f"backbone.features.{name}" if name else "backbone.features", quantisers)
    skipped = quantisers.float_layers
    image = quantisers.activation("backbone.image") if FIRST not in skipped else None
    pooled = quantisers.activation("backbone.pooled") if LAST not in skipped else None
    rewrite.replace_child(net, "backbone", QuantBackbone(net.backbone, image, pooled, library))
    dense = net.head.dense
    rewrite.replace_child(net.head, "dense", QuantDense(LAST, dense, quantisers.weight(LAST, dense.out_channels)))
    known = {layer.name for layer in layers(net)}
    for name in skipped:
        if name not in known:
            raise UsageError(f"float_layers names '{name}', which the network lacks; its layers are {', '.join(known)}")
    return net


def quantise_sequence(sequence: nn.SequentialCell, name: str, quantisers: Quantisers) -> None:
    """In place: each convolution that BN follows gets a quantised weight, and what BN or ReLU6 returns a quantiser."""
    parts, result = sequence.cell_list, []
    for index, part in enumerate(parts):
        following = parts[index + 1] if index + 1 < len(parts) else None
        layer = name if isinstance(sequence, network.ConvBNReLU6) else f"{name}.{index}"
        if isinstance(part, network.InvertedResidual) and part.has_shortcut:
            part = QuantSum(part, quantisers.activation(f"{layer}.sum"))
        elif following is not None and hasattr(following, "moving_variance"):
            part = QuantConv(layer, part, following, quantisers.weight(layer, following.gamma.shape[0]))
            result_name = f"{layer}.output"
        result.append(part)
    if any(isinstance(part, QuantConv) for part in result):
        result.append(quantisers.activation(result_name, isinstance(sequence, network.ConvBNReLU6)))
    rewrite.replace_parts(sequence, result)


def int_backbone(backbone: QuantBackbone, library: Path) -> integer_cells.InTurn:
    """Image (N, 3, H, W) -> pooled features (N, C) on whole numbers, with the parameters of `backbone`."""
    parts, source = [], backbone.image
    if source is not None:
        parts.append(integer_cells.IntImage(source, library))
    for block in backbone.features.cell_list:
        inner = block.block if isinstance(block, QuantSum) else block
        convs = int_convs(inner.conv if isinstance(inner, network.InvertedResidual) else inner, source, library)
        if isinstance(block, QuantSum):
            parts.append(integer_cells.IntResidual(convs, source, block.quantiser, library))
            source = block.quantiser
        else:
            parts += convs
            source = convs[-1].target
    parts.append(integer_cells.IntMean(source, backbone.pooled, backbone.out_channels, library))
    return integer_cells.InTurn(parts)


def int_convs(sequence: nn.SequentialCell, source: nn.Cell | None, library: Path) -> list[integer_cells.IntConv]:
    """The convolutions of a quantised sequence, whose input is on the grid of `source`."""
    found = []
    for part in sequence.cell_list:
        if isinstance(part, nn.SequentialCell):
            found += int_convs(part, source, library)
            source = found[-1].target
        elif isinstance(part, QuantConv):
            relu6 = isinstance(sequence, network.ConvBNReLU6)
            found.append(integer_cells.IntConv(part, source, sequence.cell_list[-1], relu6, library))
    return found


def layers(net: network.MobileNetV2) -> Iterator[QuantConv | QuantDense]:
    """Convolutions and classifier in the order of computation."""
    return (cell for _, cell in net.cells_and_names() if isinstance(cell, (QuantConv, QuantDense)))


def activation_quantisers(net: network.MobileNetV2) -> Iterator[nn.Cell]:
    return (cell for _, cell in net.cells_and_names() if isinstance(cell, ACTIVATION_QUANTISERS))


def set_calibrating(net: network.MobileNetV2, calibrating: bool) -> None:
    """Whether activations are summed up and nothing is quantised. For graphs that are compiled afterwards."""
    net.backbone.calibrating = calibrating
    for cell in activation_quantisers(net):
        cell.summing = calibrating
    for layer in layers(net):
        layer.quantising = layer.quantiser is not None and not calibrating


def set_phase(net: network.MobileNetV2, quantising: bool, frozen: bool, ranges_frozen: bool = False) -> None:
    """What training does: quantise or only observe; BN with the batch's statistics or, frozen, with the moving ones;
    ranges that move with the batches or, frozen, stay.

    For training steps that are compiled afterwards; evaluation always quantises with what has been observed.
    """
    for cell in activation_quantisers(net):
        cell.quantising, cell.moving = quantising, not ranges_frozen
    for layer in layers(net):
        layer.delayed = not quantising
    for _, cell in net.cells_and_names():
        if hasattr(cell, "use_batch_statistics"):
            cell.use_batch_statistics = False if frozen else None
