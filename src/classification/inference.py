"""What evaluates a classifier's network: on CPU onnxruntime, faster and with nothing to compile; else MindSpore."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from mindspore import Tensor, float32, nn

from src.classification.classifier import Classifier
from src.classification.config import Config
from src.engine import loop
from src.engine.data import stream
from src.engine.export import onnx_model
from src.engine.export.onnx_model import OnnxModel
from src.engine.io import checkpoint

Predict = Callable[[np.ndarray], np.ndarray]


class PooledBackbone(nn.Cell):
    """Image (N, 3, H, W) -> pooled features (N, C), float32 in mixed precision too."""

    def __init__(self, backbone: nn.Cell):
        super().__init__(auto_prefix=False)
        self.backbone = backbone

    def construct(self, image: Tensor) -> Tensor:
        return self.backbone(image).astype(float32).mean((2, 3))


def is_by_onnxruntime(model: Classifier, cfg: Config) -> bool:
    """Whether `predictor` takes onnxruntime; cpu_kernels "off" leaves it to MindSpore."""
    return model.graph is not None and cfg.platform == "CPU" and cfg.cpu_kernels != "off"


def predictor(model: Classifier, net: nn.Cell, cfg: Config, until_pooled: bool = False) -> Predict:
    """Images (N, 3, H, W) float32 -> logits (N, K), or pooled features (N, C), with the weights that `net` has now."""
    if is_by_onnxruntime(model, cfg):
        return in_onnxruntime(model, net, cfg, {}, until_pooled).predict
    return loop.predictor(PooledBackbone(net.backbone) if until_pooled else net)


def in_onnxruntime(
    model: Classifier, net: nn.Cell, cfg: Config, metadata: dict, until_pooled: bool = False
) -> OnnxModel:
    """The network in onnxruntime for any batch size, with the weights that it has now; no file is written."""
    if model.graph is None:
        raise ValueError(f"{model.name} has no graph for onnxruntime")
    graph = model.graph(checkpoint.arrays_of(net.get_parameters()), cfg, metadata, until_pooled)
    return onnx_model.of_graph(graph, len(stream.usable_cores()))
