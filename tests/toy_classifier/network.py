"""One convolution and a dense layer."""

import numpy as np
from mindspore import Tensor, nn, ops


class Backbone(nn.Cell):
    """Image (N, 3, H, W) -> feature map (N, C, H / 4, W / 4)."""

    def __init__(self, channels: int):
        super().__init__()
        self.out_channels = channels
        self.features = nn.SequentialCell(
            nn.Conv2d(3, channels, 5, stride=4, pad_mode="same"), nn.BatchNorm2d(channels), nn.ReLU()
        )

    def construct(self, image: Tensor) -> Tensor:
        return self.features(image)


class Head(nn.Cell):
    """Feature map (N, C, h, w), or pooled features (N, C), -> logits (N, K)."""

    def __init__(self, channels: int, classes: int):
        super().__init__()
        self.dense = nn.Dense(channels, classes, bias_init="zeros")

    def construct(self, features: Tensor, keep: Tensor = None) -> Tensor:
        features = features.mean((2, 3)) if features.ndim == 4 else features
        return self.dense(features if keep is None else features * keep)


class Toy(nn.Cell):
    def __init__(self, classes: int, channels: int, seed: int, activation: str):
        super().__init__()
        self.backbone, self.head = Backbone(channels), Head(channels, classes)
        self.softmax = activation == "Softmax"
        rng = np.random.default_rng(seed)
        for weight in (self.backbone.features[0].weight, self.head.dense.weight):
            weight.set_data(Tensor(rng.normal(0, 0.2, weight.shape).astype(np.float32)))

    def construct(self, image: Tensor, keep: Tensor = None) -> Tensor:
        logits = self.head(self.backbone(image), keep)
        return ops.softmax(logits, 1) if self.softmax else logits
