"""MobileNetV2 in PyTorch: the network of src/mobilenetv2/network.py, to measure the two frameworks on equal work."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

# Expansion, output channels, repeats, stride of the first repeat. Not imported: network.py would load MindSpore.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def convolution(in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
    ]


class Residual(nn.Module):
    """Inverted residual block."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int):
        super().__init__()
        hidden = in_channels * expansion
        layers = [*convolution(in_channels, hidden, 1), nn.ReLU6(inplace=True)] if expansion > 1 else []
        layers += [*convolution(hidden, hidden, 3, stride, hidden), nn.ReLU6(inplace=True)]
        self.layers = nn.Sequential(*layers, *convolution(hidden, out_channels, 1))
        self.has_shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x) if self.has_shortcut else self.layers(x)


class TorchMobileNetV2(nn.Module):
    """Width 1.0, without dropout."""

    def __init__(self, classes: int):
        super().__init__()
        channels = 32
        layers = [*convolution(3, channels, 3, 2), nn.ReLU6(inplace=True)]
        for expansion, out_channels, repeats, first_stride in STAGES:
            for repeat in range(repeats):
                layers.append(Residual(channels, out_channels, first_stride if repeat == 0 else 1, expansion))
                channels = out_channels
        self.features = nn.Sequential(*layers, *convolution(channels, 1280, 1), nn.ReLU6(inplace=True))
        self.classifier = nn.Linear(1280, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
        nn.init.normal_(self.classifier.weight, 0, 0.01)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


class Peer:
    """The network in one memory format, on `threads` threads; `compiled` by PyTorch's compiler or run as it is."""

    def __init__(self, classes: int, threads: int, channels_last: bool, compiled: bool = False):
        torch.set_num_threads(threads)
        torch.manual_seed(1)
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.net = TorchMobileNetV2(classes).to(memory_format=self.format)
        self.forward = torch.compile(self.net) if compiled else self.net

    def tensor(self, array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        return tensor.contiguous(memory_format=self.format) if tensor.ndim == 4 else tensor

    def train_step(self, lr: float, momentum: float, weight_decay: float) -> Callable:
        """SGD with momentum; decay on matrices and filters only, as in src/engine/steps/step.py."""
        parameters = list(self.net.parameters())
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.SGD(groups, lr, momentum)
        self.net.train()

        def step(image: torch.Tensor, target: torch.Tensor) -> float:
            loss = nn.functional.cross_entropy(self.forward(image), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss.item()

        return step

    def predictor(self) -> Callable[[torch.Tensor], np.ndarray]:
        self.net.eval()

        def predict(image: torch.Tensor) -> np.ndarray:
            with torch.inference_mode():
                return self.forward(image).numpy()

        return predict
