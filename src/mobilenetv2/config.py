"""Every key of MobileNetV2's configuration: those of an image classifier and its own. No MindSpore here."""

from __future__ import annotations

from dataclasses import dataclass

from src.classification import config
from src.engine.config import option


@dataclass(frozen=True)
class Config(config.Config):
    """Values that the recipe reads; built once by src.engine.config and never changed."""

    model: str = option("which model", "mobilenetv2", choices=("mobilenetv2",))
    width_mult: float = option("channel multiplier", 1.0, low=0.1, high=4)
    file_name: str = option("exported file, the suffix is added", "mobilenetv2")
