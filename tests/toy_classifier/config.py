"""The toy's one key, beside those of every image classifier."""

from dataclasses import dataclass

from src.classification import config
from src.engine.config import option


@dataclass(frozen=True)
class Config(config.Config):
    model: str = option("which model", "toy", choices=("toy",))
    channels: int = option("channels of the feature map", 8, low=1)
