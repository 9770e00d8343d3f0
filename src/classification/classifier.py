"""What the task of classification has to know of a model; everything else it does itself. No MindSpore here.

A network is called as `net(image, keep)`, with `image` (N, 3, H, W) and dropout's mask `keep` (N, C) or None, and is
made of two parts: `net.backbone(image)` gives a feature map (N, C, h, w), C being `net.backbone.out_channels`, and
`net.head(features, keep)` turns the map, or features (N, C) pooled from it, into logits (N, K), float32 in mixed
precision too. Its parameters are called "backbone. ..." and "head. ...".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from mindspore import Tensor, nn

    from src.classification.config import Config


@dataclass(frozen=True)
class Transforms:
    """From an image (H, W, 3) uint8 RGB to the network's input (3, height, width) float32; pure functions.

    `constants` are the numbers in `evaluation` that no key of the configuration holds, so that features computed with
    other ones are not taken for these.
    """

    train: Callable[[np.ndarray, np.random.Generator, Any], np.ndarray]  # (image, rng, cfg)
    evaluation: Callable[[np.ndarray, Any], np.ndarray]  # (image, cfg)
    constants: tuple = ()


def _same_name(name: str) -> str:
    return name


def _nothing(cfg: Config) -> dict:
    return {}


@dataclass(frozen=True)
class Classifier:
    """A model of image classification."""

    name: str  # in checkpoints and file names
    transforms: Transforms
    build: Callable[[int, Any, str], nn.Cell]  # (classes, cfg, activation) -> network with fresh weights
    loss: Callable[[Tensor, Tensor], Tensor]  # logits and target probabilities (N, K) -> scalar
    learning_rates: Callable[[Any, int], np.ndarray]  # (cfg, steps per epoch) -> (epochs * steps per epoch,)
    classifier: str  # the parameter (K, ...) that has a row per class
    metadata: Callable[[Any], dict] = field(default=_nothing)  # of cfg: what makes the network that weights belong to
    older: dict[str, Any] = field(default_factory=dict)  # what checkpoints mean that lack a key of metadata
    may_change: tuple[str, ...] = ()  # what of that a training may begin anew, because no weight's shape depends on it
    translate: Callable[[str], str] = field(default=_same_name)  # names in checkpoints that this project did not write
    # (parameters by name, cfg, metadata, whether it ends with the pooled features) -> the same network for onnxruntime
    graph: Callable[[dict[str, np.ndarray], Any, dict, bool], onnx.ModelProto] | None = None
