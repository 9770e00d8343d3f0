"""The toy's recipes: those of every image classifier."""

from functools import partial

import cv2
import numpy as np
from mindspore import ops
from src.toy.network import Toy

from src.classification import recipe
from src.classification.classifier import Classifier, Transforms


def resized(image, cfg):
    return (cv2.resize(image, (cfg.image_width, cfg.image_height)).transpose(2, 0, 1) / 255).astype(np.float32)


TOY = Classifier(
    name="toy",
    transforms=Transforms(lambda image, rng, cfg: resized(image, cfg), resized),
    build=lambda classes, cfg, activation: Toy(classes, cfg.channels, cfg.seed, activation),
    loss=ops.cross_entropy,
    learning_rates=lambda cfg, steps: np.linspace(cfg.lr_max, cfg.lr_end, cfg.epoch_size * steps, dtype=np.float32),
    classifier="head.dense.weight",
    metadata=lambda cfg: {"channels": cfg.channels},
)
commands = (recipe.train, recipe.evaluate, recipe.infer, recipe.export)
train, evaluate, infer, export = (partial(command, TOY) for command in commands)
