"""MobileNetV2's recipes: those of every image classifier (src/classification/recipe.py)."""

from __future__ import annotations

from src.classification import recipe
from src.engine.comparison import Contender, Task
from src.mobilenetv2.classifier import MOBILENETV2
from src.mobilenetv2.config import Config


def train(cfg: Config) -> int:
    return recipe.train(MOBILENETV2, cfg)


def evaluate(cfg: Config) -> int:
    return recipe.evaluate(MOBILENETV2, cfg)


def infer(cfg: Config) -> int:
    return recipe.infer(MOBILENETV2, cfg)


def contender(cfg: Config) -> tuple[Contender, Task]:
    return recipe.contender(MOBILENETV2, cfg)


def export(cfg: Config) -> int:
    return recipe.export(MOBILENETV2, cfg)
