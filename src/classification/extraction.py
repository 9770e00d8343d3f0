"""What computes the frozen backbone's features: MindSpore, or for many images on CPU onnxruntime, which is faster."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from mindspore import Tensor, float32, nn

from src.classification.classifier import Classifier
from src.classification.config import Config
from src.engine import loop
from src.engine.data import stream
from src.engine.errors import ZooError, first_line
from src.engine.export import exporting
from src.engine.io import checkpoint

WORTH_EXPORTING = 2000  # images from which the seconds that the export takes are gained


class PooledBackbone(nn.Cell):
    """Image (N, 3, H, W) -> pooled features (N, C), float32 in mixed precision too."""

    def __init__(self, backbone: nn.Cell):
        super().__init__(auto_prefix=False)
        self.backbone = backbone

    def construct(self, image: Tensor) -> Tensor:
        return self.backbone(image).astype(float32).mean((2, 3))


Predict = Callable[[np.ndarray], np.ndarray]


def predictor(model: Classifier, net: nn.Cell, images: int, cfg: Config, say: Callable[[str], None]) -> Predict:
    """Images (N, 3, H, W) float32 -> pooled features (N, C); what it takes is set up at the first call."""
    ready: list[Predict] = []

    def predict(batch: np.ndarray) -> np.ndarray:
        if not ready:
            ready.append(_choose(model, net, images, cfg, say))
        return ready[0](batch)

    return predict


def _choose(model: Classifier, net: nn.Cell, images: int, cfg: Config, say: Callable[[str], None]) -> Predict:
    if cfg.platform == "CPU" and cfg.cpu_kernels != "off" and images >= WORTH_EXPORTING:
        try:
            return by_onnxruntime(model, net, cfg)
        except ZooError as error:
            say(f"features by MindSpore, because {error}")
        except Exception as error:  # of MindSpore, onnx or the disk: training can do without the file
            reason = f"{type(error).__name__}: {first_line(error)}"
            say(f"features by MindSpore, because exporting the backbone failed ({reason})")
    return loop.predictor(PooledBackbone(net.backbone))


def by_onnxruntime(model: Classifier, net: nn.Cell, cfg: Config) -> Predict:
    """The backbone exported, compared with itself and opened again. Raises ZooError where the two differ."""
    # Built anew, because an export cannot hold the CPU kernels that `net` may have.
    stock = model.build(1, cfg, "None")
    weights = {p.name: p.asnumpy() for p in net.backbone.get_parameters()}
    checkpoint.assign(stock.backbone.get_parameters(), weights, "the backbone")
    example = exporting.random_input((2, 3, cfg.image_height, cfg.image_width), cfg.seed)
    threads = stream.usable_threads(cfg.num_workers)
    return exporting.in_onnxruntime(PooledBackbone(stock.backbone), example, threads, {}).predict
