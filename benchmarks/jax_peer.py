"""JAX's contender: MobileNetV2 with channels last, its training step compiled as one function."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.jobs import CLASSES, DECAY, MOMENTUM, RATE, STAGES, Job, class_targets, noise, scaled, time_calls

EPS, KEPT = 1e-5, 0.9  # of BN: what is added to the variance, the share of a moving average that a step keeps


class Conv(NamedTuple):
    """A convolution with BN; `opens` and `closes` an inverted residual that has a shortcut."""

    shape: tuple[int, int, int, int]  # kernel, kernel, in channels of a group, out channels
    stride: int = 1
    groups: int = 1
    activated: bool = True
    opens: bool = False
    closes: bool = False


def convolutions(multiplier: float) -> list[Conv]:
    """All of the network's, in order."""
    channels = scaled(32, multiplier)
    found = [Conv((3, 3, 3, channels), 2)]
    for expansion, base_channels, repeats, first_stride in STAGES:
        out_channels = scaled(base_channels, multiplier)
        for repeat in range(repeats):
            hidden, stride = channels * expansion, first_stride if repeat == 0 else 1
            has_shortcut = stride == 1 and channels == out_channels
            if expansion > 1:
                found.append(Conv((1, 1, channels, hidden), opens=has_shortcut))
            found.append(Conv((3, 3, 1, hidden), stride, hidden))
            found.append(Conv((1, 1, hidden, out_channels), activated=False, closes=has_shortcut))
            channels = out_channels
    return [*found, Conv((1, 1, channels, scaled(1280, max(1.0, multiplier))))]


def normalised(x: jax.Array, weight: dict, moving: tuple) -> tuple[jax.Array, tuple]:
    """BN with the statistics of the batch, and the moving statistics after it."""
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    moving = tuple(KEPT * old + (1 - KEPT) * new for old, new in zip(moving, (mean, variance)))
    return (x - mean) * lax.rsqrt(variance + EPS) * weight["gamma"] + weight["beta"], moving


def forward(plan: list[Conv], weights: dict, moving: list, x: jax.Array) -> tuple[jax.Array, list]:
    """Logits of images (N, H, W, 3), and the moving statistics after this batch."""
    after, shortcut = [], None
    for conv, weight, statistics in zip(plan, weights["convolutions"], moving):
        shortcut = x if conv.opens else shortcut
        pad = [(conv.shape[0] // 2,) * 2] * 2
        names = ("NHWC", "HWIO", "NHWC")
        strides = (conv.stride, conv.stride)
        x = lax.conv_general_dilated(
            x, weight["kernel"], strides, pad, dimension_numbers=names, feature_group_count=conv.groups
        )
        x, statistics = normalised(x, weight, statistics)
        after.append(statistics)
        x = jnp.clip(x, 0, 6) if conv.activated else x
        x = x + shortcut if conv.closes else x
    return x.mean((1, 2)) @ weights["classifier"] + weights["bias"], after


def build(plan: list[Conv]) -> tuple[dict, list]:
    """Weights and moving statistics."""
    rng = np.random.default_rng(1)
    weights = []
    for conv in plan:
        deviation = (2 / (conv.shape[0] * conv.shape[1] * conv.shape[3])) ** 0.5
        kernel = rng.normal(0, deviation, conv.shape).astype(np.float32)
        weights.append({"kernel": kernel, "gamma": np.ones(conv.shape[3]), "beta": np.zeros(conv.shape[3])})
    classifier = rng.normal(0, 0.01, (plan[-1].shape[3], CLASSES))
    moving = [(np.zeros(conv.shape[3]), np.ones(conv.shape[3])) for conv in plan]
    tree = ({"convolutions": weights, "classifier": classifier, "bias": np.zeros(CLASSES)}, moving)
    return jax.tree.map(lambda array: jnp.asarray(array, jnp.float32), tree)


def train(job: Job) -> dict:
    """SGD with momentum, decay on matrices and filters only; JAX takes the cores that the process may use."""
    plan = convolutions(job.multiplier)
    weights, moving = build(plan)
    image, target = jnp.asarray(noise(job.shape).transpose(0, 2, 3, 1)), jnp.asarray(class_targets(job.batch))

    def loss_of(weights: dict, moving: list, image: jax.Array, target: jax.Array) -> tuple[jax.Array, list]:
        logits, moving = forward(plan, weights, moving, image)
        return -(target * jax.nn.log_softmax(logits)).sum(1).mean(), moving

    def step(state: tuple, image: jax.Array, target: jax.Array) -> tuple[tuple, jax.Array]:
        weights, velocity, moving = state
        (loss, moving), gradients = jax.value_and_grad(loss_of, has_aux=True)(weights, moving, image, target)
        velocity = jax.tree.map(
            lambda v, g, w: MOMENTUM * v + g + (DECAY * w if w.ndim > 1 else 0), velocity, gradients, weights
        )
        return (jax.tree.map(lambda w, v: w - RATE * v, weights, velocity), velocity, moving), loss

    compiled = jax.jit(step, donate_argnums=0)
    state = (weights, jax.tree.map(jnp.zeros_like, weights), moving)

    def call() -> float:
        nonlocal state
        state, loss = compiled(state, image, target)
        return float(loss)

    return time_calls(call, job)
