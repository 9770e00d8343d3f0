"""The CPU kernels against float64 numpy, without MindSpore; sanitizers, numbers of threads, determinism."""

from __future__ import annotations

import math
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from src.cpu_kernels import build
from tests import native_kernels
from tests.aarch64 import emulation
from tests.conftest import ROOT
from tests.native_kernels import KERNELS, Kernels, random

# One pixel, odd sizes, planes wider than a block of pixels, one image and more.
MAPS = [(1, 1, 1, 1), (2, 5, 9, 7), (1, 19, 33, 14), (3, 8, 2, 3)]


# Vectors of 16 floats (where this machine has AVX-512), 8 (what compilers call x86-64-v3) and 4 (x86-64): vectors.h.
BUILDS = {"native": (), "avx2": ("-march=x86-64", "-mavx2", "-mfma"), "sse2": ("-march=x86-64",)}
AARCH64 = pytest.param("aarch64", marks=pytest.mark.slow)  # 4 floats as well, under emulation


@pytest.fixture(scope="module")
def native() -> Path:
    try:
        return build.library_path()
    except build.KernelsUnavailable as reason:
        pytest.skip(f"the CPU kernels cannot be built here: {reason}")


@pytest.fixture(scope="module", params=[*BUILDS, AARCH64])
def library(request, native, tmp_path_factory) -> Path:
    """The library as it is used, and on x86 those of machines with narrower vectors, and of aarch64."""
    if request.param == "native":
        return native
    if request.param == "aarch64":
        if emulation.missing():
            pytest.skip(emulation.missing())
        path = tmp_path_factory.mktemp("aarch64") / "kernels.so"
        return compiled(path, emulation.PROCESSOR, compiler=[emulation.COMPILER])
    if platform.machine() != "x86_64":
        pytest.skip("this instruction set is not of this machine")
    if request.param == "avx2" and not {"avx2", "fma"} <= set(Path("/proc/cpuinfo").read_text().split()):
        pytest.skip("this processor has no AVX2")
    return compiled(tmp_path_factory.mktemp(request.param) / "kernels.so", *BUILDS[request.param])


def compiled(path: Path, *flags: str, without: str = "-march=native", compiler: list[str] | None = None) -> Path:
    """A library with other flags than `library_path` uses."""
    usual = [flag for flag in build.FLAGS if flag != without]
    build.compile_library(compiler or build._compiler(), [*usual, *flags], path)
    return path


@pytest.fixture(scope="module")
def kernels(library) -> Kernels:
    return native_kernels.load(library)


def assert_close(actual: np.ndarray, expected: np.ndarray, tolerance: float = 3e-5) -> None:
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance * scale)


def slope(function, array: np.ndarray, index: tuple, step: float = 1e-6) -> float:
    """Derivative of a float64 function by central difference."""
    high, low = array.astype(np.float64), array.astype(np.float64)
    high[index] += step
    low[index] -= step
    return (function(high) - function(low)) / (2 * step)


def assert_slopes(gradients: list[np.ndarray], function, arrays: list[np.ndarray], tolerance: float = 2e-4) -> None:
    """Compare gradients with finite differences of function(*arrays), at a few positions of each array."""
    rng = np.random.default_rng(1)
    for number, (gradient, array) in enumerate(zip(gradients, arrays)):
        scale = max(1.0, np.abs(gradient).max())
        for _ in range(6):
            index = tuple(int(rng.integers(side)) for side in array.shape)

            def along(changed, number=number):
                return function(*arrays[:number], changed, *arrays[number + 1 :])

            assert gradient[index] == pytest.approx(slope(along, array, index), abs=tolerance * scale)


def normalize(x, gamma, beta, eps):
    x = np.asarray(x, np.float64)
    mean, variance = x.mean(1, keepdims=True), x.var(1, keepdims=True)
    return (x - mean) / np.sqrt(variance + eps) * gamma[:, None, None] + beta[:, None, None]


@pytest.mark.parametrize("shape", MAPS)
def test_layer_norm(kernels, shape):
    n, c, h, w = shape
    x, gamma, beta, dy = random(*shape) + 3, random(c, seed=1), random(c, seed=2), random(*shape, seed=3)
    sizes = [shape, (n, h, w), (n, h, w)]
    y, mean, scale = kernels("ChannelNorm", [x, gamma, beta, np.array([1e-5], np.float32)], sizes)
    assert_close(y, normalize(x, gamma, beta, 1e-5))
    if c == 1:
        return  # nothing but eps decides the scale; the gradient is 0
    gradients = kernels("ChannelNormBackward", [x, gamma, mean, scale, dy], [shape, (c,), (c,)])
    assert_slopes(
        gradients, lambda x, gamma, beta: (normalize(x, gamma, beta, 1e-5) * dy).sum(), [x, gamma, beta], 1e-3
    )


@pytest.mark.parametrize("out", [1, 8, 50])
@pytest.mark.parametrize("shape", [*MAPS, (2, 20, 40, 61)])
def test_dense(kernels, shape, out):
    n, c, h, w = shape
    x, weight, bias, y_shape = random(*shape), random(out, c), random(out, seed=1), (n, out, h, w)
    residual, dy = random(*y_shape, seed=2), random(*y_shape, seed=3)
    keep = np.linspace(0, 1.25, n).astype(np.float32)
    branch = np.einsum("oc,nchw->nohw", weight.astype(np.float64), x) + bias[:, None, None]
    assert_close(kernels("Dense", [x, weight, bias], [y_shape])[0], branch)
    expected = residual + keep[:, None, None, None] * branch
    assert_close(kernels("DenseResidual", [x, weight, bias, residual, keep], [y_shape])[0], expected)
    shapes = [shape, weight.shape, bias.shape]
    for found, arrived in (
        (kernels("DenseBackward", [x, weight, dy], shapes), dy.astype(np.float64)),
        (kernels("DenseResidualBackward", [x, weight, keep, dy], shapes), dy * keep[:, None, None, None]),
    ):
        assert_close(found[0], np.einsum("oc,nohw->nchw", weight, arrived))
        assert_close(found[1], np.einsum("nohw,nchw->oc", arrived, x))
        assert_close(found[2], arrived.sum((0, 2, 3)))


def attend(q, kv, heads):
    """Softmax attention in float64: maps to tokens, as network.Attention does."""
    n, c, h, w = q.shape
    d = c // heads
    query = np.asarray(q, np.float64).reshape(n, heads, d, -1)
    key, value = np.asarray(kv, np.float64).reshape(n, 2, heads, d, -1).transpose(1, 0, 2, 3, 4)
    scores = np.einsum("nhdl,nhdm->nhlm", query, key) / np.sqrt(d)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("nhlm,nhdm->nhdl", weights, value).reshape(n, c, h, w)


@pytest.mark.parametrize(
    ("queries", "keys", "channels", "heads"),
    [((1, 1), (1, 1), 4, 1), ((9, 13), (3, 5), 6, 2), ((7, 7), (2, 9), 40, 1), ((3, 50), (6, 8), 64, 2)],
)
def test_attention(kernels, queries, keys, channels, heads):
    q, kv = random(2, channels, *queries) * 2, random(2, 2 * channels, *keys)
    dy, settings = random(*q.shape, seed=1), np.array([heads], np.float32)
    y, logs = kernels("Attention", [q, kv, settings], [q.shape, (2, heads, queries[0] * queries[1])])
    assert_close(y, attend(q, kv, heads))
    gradients = kernels("AttentionBackward", [q, kv, settings, y, logs, dy], [q.shape, kv.shape])
    assert_slopes(gradients, lambda q, kv: (attend(q, kv, heads) * dy).sum(), [q, kv])


def test_attention_to_far_keys_does_not_overflow(kernels):
    q, kv, settings = random(1, 8, 3, 3) * 300, random(1, 16, 2, 2) * 30, np.array([1], np.float32)
    y, logs = kernels("Attention", [q, kv, settings], [q.shape, (1, 1, 9)])
    assert_close(y, attend(q, kv, 1), 1e-3)
    for gradient in kernels("AttentionBackward", [q, kv, settings, y, logs, q], [q.shape, kv.shape]):
        assert np.isfinite(gradient).all()


def error_function(x: np.ndarray) -> np.ndarray:
    return np.vectorize(math.erf, otypes=[np.float64])(x)


def gelu_of_depthwise(x, weight, bias):
    n, c, h, w = x.shape
    padded = np.pad(np.asarray(x, np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    taps = (weight[:, 0, i, j][:, None, None] * padded[..., i : i + h, j : j + w] for i in range(3) for j in range(3))
    value = sum(taps) + bias[:, None, None]
    return value * 0.5 * (1 + error_function(value / np.sqrt(2)))


@pytest.mark.parametrize("shape", MAPS)
def test_depthwise_gelu(kernels, shape):
    c = shape[1]
    x, weight, bias, dy = random(*shape), random(c, 1, 3, 3), random(c, seed=1), random(*shape, seed=2)
    assert_close(kernels("DepthwiseGelu", [x, weight, bias], [shape])[0], gelu_of_depthwise(x, weight, bias), 3e-6)
    gradients = kernels("DepthwiseGeluBackward", [x, weight, bias, dy], [shape, weight.shape, (c,)])
    assert_slopes(gradients, lambda *arrays: (gelu_of_depthwise(*arrays) * dy).sum(), [x, weight, bias])


def convolve(x, weight, bias, stride, padding):
    kernel = weight.shape[2]
    padded = np.pad(np.asarray(x, np.float64), ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), (2, 3))[:, :, ::stride, ::stride]
    return np.einsum("nchwij,ocij->nohw", windows, weight) + bias[:, None, None]


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(7, 4, 3), (3, 2, 1), (3, 1, 1), (2, 2, 0), (8, 8, 0)])
@pytest.mark.parametrize("shape", [(2, 3, 11, 9), (1, 5, 8, 33)])
def test_convolution(kernels, shape, kernel, stride, padding):
    x, weight, bias = random(*shape), random(10, shape[1], kernel, kernel), random(10, seed=1)
    settings, expected = np.array([stride, padding], np.float32), convolve(x, weight, bias, stride, padding)
    assert_close(kernels("Conv", [x, weight, bias, settings], [expected.shape])[0], expected)
    dy = random(*expected.shape, seed=2)
    gradients = kernels("ConvBackward", [x, weight, settings, dy], [shape, weight.shape, (10,)])
    assert_slopes(
        gradients, lambda x, weight, bias: (convolve(x, weight, bias, stride, padding) * dy).sum(), [x, weight, bias]
    )


def matrix(source: int, target: int) -> np.ndarray:
    """Bilinear interpolation with half-pixel centres as a matrix (target, source)."""
    positions = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    return np.stack([np.interp(positions, np.arange(source), row) for row in np.eye(source)], 1)


def resized(x: np.ndarray, height: int, width: int) -> np.ndarray:
    rows, columns = matrix(x.shape[2], height), matrix(x.shape[3], width)
    return np.einsum("yh,nchw,xw->ncyx", rows, np.asarray(x, np.float64), columns)


@pytest.mark.parametrize(
    "sizes", [((9, 13), (5, 7), (3, 4), (2, 2)), ((1, 1),) * 4, ((8, 40), (4, 20), (2, 10), (1, 5))]
)
def test_resize_sum(kernels, sizes):
    maps = [random(2, 3, *size, seed=number) for number, size in enumerate(sizes)]
    (found,) = kernels("ResizeSum", maps, [maps[0].shape])
    assert_close(found, sum(resized(m, *sizes[0]) for m in maps))
    dy = random(*maps[0].shape, seed=9)
    gradients = kernels("ResizeSumBackward", [*maps, dy], [m.shape for m in maps[1:]])
    for gradient, size in zip(gradients, sizes[1:]):
        assert_close(
            gradient, np.einsum("yh,ncyx,xw->nchw", matrix(size[0], sizes[0][0]), dy, matrix(size[1], sizes[0][1]))
        )


def pixel_loss(logits, label, weights, ignore):
    large = resized(logits, *label.shape[1:])
    large = large - large.max(1, keepdims=True)
    log_probability = large - np.log(np.exp(large).sum(1, keepdims=True))
    weight = np.where(label == ignore, 0.0, weights[label * (label != ignore)])
    chosen = np.take_along_axis(log_probability, (label * (label != ignore))[:, None], 1)[:, 0]
    return -(weight * chosen).sum() / max(weight.sum(), 1e-6)


@pytest.mark.parametrize(
    ("small", "large"), [((1, 1), (1, 1)), ((5, 7), (20, 28)), ((3, 9), (11, 70)), ((4, 4), (4, 4))]
)
def test_pixel_loss(kernels, small, large):
    logits, weights = random(2, 6, *small) * 3, np.linspace(0, 2, 6).astype(np.float32)
    label = np.random.default_rng(0).integers(1, 6, (2, *large)).astype(np.int32)
    label[:, large[0] // 2 + 1 :] = 255
    inputs = [logits, label, weights, np.array([255], np.float32)]
    loss, gradient = kernels("PixelLoss", inputs, [(1,), logits.shape])
    assert loss[0] == pytest.approx(pixel_loss(logits, label, weights, 255), rel=2e-6)
    assert_slopes([gradient], lambda logits: pixel_loss(logits, label, weights, 255), [logits], 1e-5)


def test_pixel_loss_of_nothing_is_zero_and_of_no_class_is_refused(kernels):
    logits, weights, ignore = random(1, 3, 2, 2), np.ones(3, np.float32), np.array([255], np.float32)
    label = np.full((1, 8, 8), 255, np.int32)
    loss, gradient = kernels("PixelLoss", [logits, label, weights, ignore], [(1,), logits.shape])
    assert loss[0] == 0 and not gradient.any()
    label[0, 3, 3] = 3
    sentence = "CPU kernel PixelLoss: label must hold classes from 0 to 2 or 255, not 3"
    with pytest.raises(ValueError, match=sentence):
        kernels("PixelLoss", [logits, label, weights, ignore], [(1,), logits.shape])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixel_loss_of_a_bad_logit_that_does_not_count_is_nan(kernels, value):
    """As of the stock operators, where the pixel's weight of 0 times NaN is NaN."""
    logits, weights, ignore = random(1, 3, 4, 4), np.array([0, 1, 1], np.float32), np.array([255], np.float32)
    logits[0, 1, 2, 2] = value
    for passed_over in (255, 0):  # ignored, and of a class with weight 0
        label = np.ones((1, 16, 16), np.int32)
        label[0, 4:] = passed_over  # all that the third row of the logits reaches
        loss, gradient = kernels("PixelLoss", [logits, label, weights, ignore], [(1,), logits.shape])
        assert np.isnan(loss[0]) and np.isnan(gradient).any()


def test_pixel_loss_takes_negative_weights(kernels):
    logits, weights, ignore = random(1, 3, 4, 4), np.array([-1, 2, -0.5], np.float32), np.array([255], np.float32)
    for label in (np.arange(64, dtype=np.int32).reshape(1, 8, 8) % 3, np.zeros((1, 8, 8), np.int32)):
        loss, _ = kernels("PixelLoss", [logits, label, weights, ignore], [(1,), logits.shape])
        assert loss[0] == pytest.approx(pixel_loss(logits, label, weights, 255), rel=1e-5)


LIMITS = {"Linear": (-np.inf, np.inf), "ReLU": (0, np.inf), "ReLU6": (0, 6)}


def normalize_batch(x, gamma, beta, mean, variance, activation):
    x = np.asarray(x, np.float64)
    mean, variance = (x.mean((0, 2, 3)), x.var((0, 2, 3))) if mean is None else (mean, variance)
    factor = gamma / np.sqrt(variance + 1e-5)
    y = (x - mean[:, None, None]) * factor[:, None, None] + beta[:, None, None]
    return np.clip(y, *LIMITS[activation])


@pytest.mark.parametrize("activation", LIMITS)
@pytest.mark.parametrize("shape", [(2, 5, 9, 7), (1, 3, 70, 61), (9, 4, 1, 1)])
def test_batch_normalisation(kernels, shape, activation):
    c = shape[1]
    x, gamma, beta = random(*shape) * 2 + 1, random(c) + 2, random(c, seed=1) + 2
    mean, variance, dy = random(c, seed=2), np.abs(random(c, seed=3)) + 1, random(*shape, seed=4)
    inputs, vectors = [x, gamma, beta, mean, variance, np.array([1e-5, 0.9], np.float32)], [(c,)] * 4
    y, *found = kernels(f"BatchNormTrain{activation}", inputs, [shape, *vectors])
    assert_close(y, normalize_batch(x, gamma, beta, None, None, activation))
    gradients = kernels(f"BatchNormTrainBackward{activation}", [*inputs[:3], *found[:2], dy], [shape, (c,), (c,)])
    assert_slopes(
        gradients, lambda *arrays: (normalize_batch(*arrays, None, None, activation) * dy).sum(), [x, gamma, beta], 1e-3
    )
    (y,) = kernels(f"BatchNormInfer{activation}", inputs, [shape])
    assert_close(y, normalize_batch(x, gamma, beta, mean, variance, activation))
    gradients = kernels(f"BatchNormInferBackward{activation}", [*inputs, dy], [shape, (c,), (c,)])
    assert_slopes(
        gradients, lambda *arrays: (normalize_batch(*arrays, mean, variance, activation) * dy).sum(), [x, gamma, beta]
    )


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (2, 5, 9, 7), (3, 4, 8, 8), (2, 3, 80, 61)])
def test_joined_normalisation_and_depthwise_convolution(kernels, shape, stride):
    """The same numbers as of the two kernels, one after the other."""
    n, c, h, w = shape
    x, weight, small = random(*shape), random(c, 1, 3, 3), (n, c, (h - 1) // stride + 1, (w - 1) // stride + 1)
    settings, sizes = np.array([1e-5, 0.9], np.float32), [(c,)] * 4
    vectors = [random(c) + 3, random(c, seed=1) * 3, random(c, seed=2), np.abs(random(c)), settings]
    between, *expected = kernels("BatchNormTrainReLU6", [x, *vectors], [shape, *sizes])
    y, *found = kernels(f"NormDepthwiseS{stride}", [x, *vectors, weight], [small, *sizes])
    np.testing.assert_array_equal(found, expected)
    assert_close(y, kernels(f"DepthwiseS{stride}", [between, weight], [small])[0], 1e-6)

    dy, mean_and_scale = random(*small, seed=3), expected[:2]
    dbetween, dweight = kernels(f"DepthwiseBackwardS{stride}", [between, weight, dy], [shape, weight.shape])
    inputs = [x, *vectors[:2], *mean_and_scale]
    gradients = kernels("BatchNormTrainBackwardReLU6", [*inputs, dbetween], [shape, (c,), (c,)])
    joined = kernels(f"NormDepthwiseBackwardS{stride}", [*inputs, weight, dy], [shape, (c,), (c,), weight.shape])
    for ours, theirs in zip(joined, [*gradients, dweight]):
        assert_close(ours, theirs, 1e-6)


def snapped(x: np.ndarray, scale: np.ndarray, zero_point: np.ndarray, low: float, high: float) -> np.ndarray:
    """Fake quantisation in float32, by its definition."""
    whole = np.clip(np.rint(x / scale) + zero_point, low, high)
    return (whole - zero_point) * scale


@pytest.mark.parametrize("rows", [1, 7])
def test_fake_quantisation(kernels, rows):
    x, scale = random(7, 33, 5), np.float32([0.02, 0.013, 0.5, 0.007, 0.1, 1.0, 0.03])[:rows]
    zero_point, limits = np.float32([3, 0, -128, 127, 1, 2, -5])[:rows], np.float32([-128, 127])
    columns = scale.reshape(-1, 1, 1), zero_point.reshape(-1, 1, 1)
    y, extremes = kernels("FakeQuant", [x, scale, zero_point, limits], [x.shape, (2,)])
    np.testing.assert_array_equal(y, snapped(x, *columns, -128, 127))
    np.testing.assert_array_equal(extremes, [x.min(), x.max()])
    dy = random(*x.shape, seed=1)
    dx, dscale = kernels("FakeQuantBackward", [x, scale, zero_point, limits, dy], [x.shape, scale.shape])
    whole = np.rint(x / columns[0]) + columns[1]
    inside = (whole >= -128) & (whole <= 127)
    np.testing.assert_array_equal(dx, np.where(inside, dy, 0))
    share = np.clip(whole, -128, 127) - columns[1] - np.where(inside, x / columns[0], 0)
    assert_close(dscale, (dy * share.astype(np.float64)).reshape(rows, -1).sum(1))


def test_whole_filters(kernels):
    """Every step in float32, as integer kernels' parameters are made; the last channel's bias leaves no room."""
    c, eps = 6, np.float32(1e-5)
    weight, gamma, beta, mean = random(c, 4, 3, 3), random(c), random(c, seed=1), random(c, seed=2)
    gamma[-1], variance = 1e-12, np.abs(random(c, seed=3)) + np.float32(0.5)
    source, target = np.float32([0.02]), np.float32([0.05])
    settings = np.float32([-127, 127, 1, 1, eps, 0])
    inputs = [weight, gamma, beta, mean, variance, np.ones(1, np.float32), source, target, settings]
    whole, bias, factor = kernels("IntFilters", inputs, [weight.shape, (c,), (c,)])
    fold = gamma * (np.float32(1) / np.sqrt(variance + eps))
    folded, expected_bias = weight * fold.reshape(-1, 1, 1, 1), beta - mean * fold
    scale = np.maximum(np.abs(folded).max((1, 2, 3)) * np.float32(2) / np.float32(254), np.finfo(np.float32).eps)
    scale = np.maximum(scale, np.abs(expected_bias) / (source * np.float32(2**30)))
    np.testing.assert_array_equal(whole, np.clip(np.rint(folded / scale.reshape(-1, 1, 1, 1)), -127, 127))
    np.testing.assert_array_equal(bias, np.rint(expected_bias / (source * scale)))
    np.testing.assert_array_equal(factor, source * scale / target)
    assert np.abs(bias).max() < 2**31


@pytest.mark.parametrize("shape", [*MAPS, (4, 6)])
def test_requantisation(kernels, shape):
    c = shape[1]
    x, bias = np.rint(random(*shape) * 5000), np.rint(random(c) * 500)
    factor, limits = np.abs(random(c, seed=1)) / 20, np.float32([0, 100])
    found = kernels("IntRequantise", [x, bias, factor, limits], [shape])[0]
    by_channel = (-1, *[1] * (len(shape) - 2))
    np.testing.assert_array_equal(
        found, np.clip(np.rint((x + bias.reshape(by_channel)) * factor.reshape(by_channel)), 0, 100)
    )


def test_whole_sum_is_that_of_onnxruntime(kernels):
    """All pairs of uint8; with the first scales half of them lie between two numbers of the grid."""
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    if platform.machine() != "x86_64" or "avx2" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("onnxruntime adds in another order here")
    a, b = (side.reshape(1, 1, 256, 256).astype(np.uint8) for side in np.meshgrid(np.arange(256), np.arange(256)))
    rng = np.random.default_rng(0)
    for scales in [np.float32([0.05, 0.1, 0.1]), *rng.uniform(0.01, 0.2, (10, 3)).astype(np.float32)]:
        zeros = rng.integers(90, 160, 3)
        model = sum_of_quantised(onnx.helper, onnx.numpy_helper, scales, zeros, a.shape)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        numbers = np.float32([*zeros[:2], scales[0] / scales[2], scales[1] / scales[2], zeros[2], 0, 255])
        inputs = [side.astype(np.float32) - zero for side, zero in zip((a, b), zeros.astype(np.float32))]
        (found,) = kernels("IntSum", [*inputs, numbers], [a.shape])
        np.testing.assert_array_equal(found + zeros[2], session.run(None, {"a": a, "b": b})[0])


def sum_of_quantised(helper, numpy_helper, scales: np.ndarray, zeros: np.ndarray, shape: tuple[int, ...]):
    """An ONNX model q = a + b of three uint8 tensors, which onnxruntime makes one QLinearAdd of."""
    constants = {f"{name}.scale": np.float32(scale) for name, scale in zip("abq", scales)}
    constants.update({f"{name}.zero": np.uint8(zero) for name, zero in zip("abq", zeros)})
    nodes = [
        *(helper.make_node("DequantizeLinear", [x, f"{x}.scale", f"{x}.zero"], [f"{x}.float"]) for x in "ab"),
        helper.make_node("Add", ["a.float", "b.float"], ["sum"]),
        helper.make_node("QuantizeLinear", ["sum", "q.scale", "q.zero"], ["q"]),
    ]
    tensors = [helper.make_tensor_value_info(name, 2, shape) for name in "abq"]  # 2: uint8
    stored = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "sum", tensors[:2], tensors[2:], stored)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    made.ir_version = 8
    return made


def test_nan_is_not_hidden(kernels):
    logits = random(1, 3, 4, 4)
    logits[0, 1, 2, 2] = np.nan
    label, weights = np.zeros((1, 16, 16), np.int32), np.ones(3, np.float32)
    loss, _ = kernels("PixelLoss", [logits, label, weights, np.array([255], np.float32)], [(1,), logits.shape])
    assert np.isnan(loss[0])
    x = random(1, 2, 5, 5)
    x[0, 0, 2, 2] = np.nan
    (y,) = kernels("DepthwiseGelu", [x, random(2, 1, 3, 3), random(2)], [x.shape])
    assert np.isnan(y[0, 0]).sum() == 9 and not np.isnan(y[0, 1]).any()
    y, _ = kernels("Attention", [x, random(1, 4, 2, 2), np.array([1], np.float32)], [x.shape, (1, 1, 25)])
    assert np.isnan(y[0, :, 2, 2]).all() and np.isnan(y).sum() == 2


@pytest.fixture(scope="module")
def good_calls(kernels) -> dict[str, list[np.ndarray]]:
    return native_kernels.good_calls(kernels)


def test_every_kernel_of_the_table_is_called(good_calls):
    assert set(good_calls) == set(native_kernels.KERNELS)
    assert all(not native_kernels.expected_refusal(name, arrays) for name, arrays in good_calls.items())


def test_tensors_of_another_shape_or_type_are_refused(kernels, good_calls):
    """By the check in C++ with the sentences of the check in Python."""
    assert all(kernels.refusal(name, arrays) == "" for name, arrays in good_calls.items())
    for name, kind, arrays in native_kernels.bad_calls(good_calls):
        sentence = kernels.refusal(name, arrays)
        assert sentence.startswith(f"CPU kernel {name}: "), f"{name} takes what is {kind}"
        assert sentence == native_kernels.expected_refusal(name, arrays)


@pytest.mark.parametrize(
    ("name", "number", "changed", "sentence"),
    [
        ("DepthwiseS2", 1, random(18, 1, 3, 3), "weight must have the shape (c=19, 1, 3, 3), not (18, 1, 3, 3)"),
        ("DepthwiseS2", 2, random(2, 9, 9, 7), "y must have the shape (n=2, c=19, out_h=5, out_w=7), not (2, 9, 9, 7)"),
        ("DepthwiseS1", 0, random(19, 9, 13), "x must have the shape (n, c, h, w), not (19, 9, 13)"),
        ("Dense", 0, random(2, 0, 9, 13), "x must have the shape (n, c, h, w) without a side of 0, not (2, 0, 9, 13)"),
        ("Conv", 1, random(6, 19, 3, 5), "weight must have the shape (out, c=19, kernel, kernel), not (6, 19, 3, 5)"),
        ("Attention", 1, random(2, 38, 3, 4), "kv must have the shape (n=2, 2*c=76, key_h, key_w), not (2, 38, 3, 4)"),
        ("Attention", 2, np.float32([3]), "c % heads == 0 has to hold, with c=38 and heads=3"),
        ("Conv", 3, np.float32([0.5, 0]), "stride must be a whole number from 0 to 1048575, not 0.5"),
        ("IntSum", 1, random(2, 19, 9), "b must have the shape (c=2, 19, 9, 13), not (2, 19, 9)"),
        ("FakeQuant", 1, np.ones(3, np.float32), "rows == 1 or rows == c has to hold, with rows=3 and c=2"),
        ("BatchNormTrainReLU", 5, np.ones(3, np.float32), "settings must have the shape (2,), not (3,)"),
        ("PixelLoss", 1, np.zeros((2, 33, 50), np.int64), "label must be of type int32, not int64"),
    ],
)  # fmt: skip
def test_a_refusal_names_kernel_argument_expected_and_found(kernels, good_calls, name, number, changed, sentence):
    arrays = list(good_calls[name])
    arrays[number] = changed
    assert kernels.refusal(name, arrays) == f"CPU kernel {name}: {sentence}"
    assert kernels.refusal(name, arrays[:-1]).endswith(
        f", {KERNELS[name][0].arguments[-1].name}), not {len(arrays) - 1}"
    )


@pytest.mark.parametrize(
    ("name", "number", "values"),
    [
        ("Attention", 2, [[0], [-2], [3], [np.nan]]),
        ("AttentionBackward", 2, [[0], [-2], [3], [np.nan]]),
        ("Conv", 3, [[0, 0], [-1, 0], [4, -1], [np.nan, 0], [4, np.nan]]),
        ("ConvBackward", 2, [[0, 0], [-1, 0], [4, -1], [np.nan, 0], [4, np.nan]]),
    ],
)
def test_settings_that_fit_no_tensor_are_refused(kernels, good_calls, name, number, values):
    """Heads that do not divide the channels; stride and padding."""
    for value in values:
        arrays = list(good_calls[name])
        arrays[number] = np.array(value, np.float32)
        sentence = kernels.refusal(name, arrays)
        assert sentence.startswith(f"CPU kernel {name}: "), value
        assert sentence == native_kernels.expected_refusal(name, arrays)


def test_shapes_that_do_not_fit_each_other_are_refused(kernels):
    x = random(1, 4, 3, 3)
    with pytest.raises(ValueError, match="Dense"):
        kernels("Dense", [x, random(2, 5), random(2)], [(1, 2, 3, 3)])
    with pytest.raises(ValueError, match="Attention"):
        kernels("Attention", [x, random(1, 6, 2, 2), np.array([1], np.float32)], [x.shape, (1, 1, 9)])
    with pytest.raises(ValueError, match="Conv"):  # a filter larger than the image and its border
        kernels("Conv", [x, random(2, 4, 6, 6), random(2), np.array([4, 1], np.float32)], [(1, 2, 1, 1)])
    maps = [random(1, 2, *size) for size in ((6, 6), (3, 3), (2, 2), (1, 1))]
    for dy, third in (((5, 6), (2, 2)), ((6, 6), (2, 3))):
        with pytest.raises(ValueError, match="ResizeSumBackward"):
            kernels("ResizeSumBackward", [*maps, random(1, 2, *dy)], [(1, 2, 3, 3), (1, 2, *third), (1, 2, 1, 1)])


# Planes of one pixel, of four, of a vector, with rests of channels and pixels, one tile and several; and a large one.
PLANES = [(40, 35, 1, 1), (70, 33, 2, 2), (9, 48, 4, 4), (2, 24, 8, 8), (3, 18, 5, 7), (2, 19, 16, 13), (1, 5, 33, 29)]


def depthwise(x, weight, stride):
    x = np.asarray(x, np.float64)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))[:, :, ::stride, ::stride]
    return np.einsum("nchwij,cij->nchw", windows, weight[:, 0])


def batch_normalized(x, gamma, beta, eps=1e-5):
    x = np.asarray(x, np.float64)
    mean, variance = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
    return (x - mean) / np.sqrt(variance + eps) * gamma[:, None, None] + beta[:, None, None]


def statistics(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Shapes of the outputs of a normalisation."""
    return [shape, *[(shape[1],)] * 4]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", PLANES)
def test_depthwise(kernels, shape, stride):
    n, c, h, w = shape
    x, weight = random(*shape), random(c, 1, 3, 3)
    expected = depthwise(x, weight, stride)
    assert_close(kernels(f"DepthwiseS{stride}", [x, weight], [expected.shape])[0], expected, 3e-6)
    dy = random(*expected.shape, seed=1)
    gradients = kernels(f"DepthwiseBackwardS{stride}", [x, weight, dy], [shape, weight.shape])
    assert_slopes(gradients, lambda x, weight: (depthwise(x, weight, stride) * dy).sum(), [x, weight])


@pytest.mark.parametrize("out", [1, 16, 50])
@pytest.mark.parametrize("shape", [*PLANES, (300, 8, 1, 1)])
def test_pointwise(kernels, shape, out):
    n, c, h, w = shape
    x, weight, dy = random(*shape), random(out, c, 1, 1), random(n, out, h, w)
    matrix = weight[..., 0, 0].astype(np.float64)
    expected = np.einsum("oc,nchw->nohw", matrix, x)
    assert_close(kernels("Pointwise", [x, weight], [dy.shape])[0], expected, 3e-6)
    dx, dweight = kernels("PointwiseBackward", [x, weight, dy], [shape, weight.shape])
    assert_close(dx, np.einsum("oc,nohw->nchw", matrix, dy), 3e-6)
    assert_close(dweight[..., 0, 0], np.einsum("nohw,nchw->oc", dy.astype(np.float64), x), 3e-6)


@pytest.mark.parametrize("shape", PLANES)
def test_training_norm(kernels, shape):
    n, c, h, w = shape
    x, gamma, beta, dy = random(*shape) + 3, random(c, seed=1), random(c, seed=2), random(*shape, seed=3)
    moving, settings = [random(c, seed=4), np.abs(random(c, seed=5))], np.array([1e-5, 0.9], np.float32)
    inputs, sizes = [x, gamma, beta, *moving, settings], statistics(shape)
    exact = batch_normalized(x, gamma, beta)
    for suffix, most in (("Linear", None), ("ReLU6", 6.0)):
        y, mean, scale, new_mean, new_variance = kernels(f"BatchNormTrain{suffix}", inputs, sizes)
        assert_close(y, exact if most is None else np.clip(exact, 0, most), 1e-5)
        assert_close(new_mean, 0.9 * moving[0] + 0.1 * x.astype(np.float64).mean((0, 2, 3)), 3e-6)
        assert_close(new_variance, 0.9 * moving[1] + 0.1 * x.astype(np.float64).var((0, 2, 3), ddof=1), 1e-5)
        # As float64 passes them, so that a value beside an edge of ReLU6 is compared with its own side.
        passed = dy if most is None else dy * ((exact > 1e-3) & (exact < most - 1e-3))
        gradients = kernels(
            f"BatchNormTrainBackward{suffix}", [x, gamma, beta, mean, scale, passed], [shape, (c,), (c,)]
        )
        assert_slopes(
            gradients, lambda *arrays, passed=passed: (batch_normalized(*arrays) * passed).sum(), [x, gamma, beta], 1e-3
        )


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", PLANES)
def test_a_joined_normalisation_and_depthwise_are_the_two(kernels, shape, stride):
    n, c, h, w = shape
    x, weight, moving = random(*shape), random(c, 1, 3, 3), [random(c, seed=4), np.abs(random(c, seed=5))]
    gamma, beta, settings = random(c, seed=1), random(c, seed=2), np.array([1e-5, 0.9], np.float32)
    inputs = [x, gamma, beta, *moving, settings]
    z, *expected = kernels("BatchNormTrainReLU6", inputs, statistics(shape))
    small = (n, c, (h - 1) // stride + 1, (w - 1) // stride + 1)
    (y,) = kernels(f"DepthwiseS{stride}", [z, weight], [small])
    found = kernels(f"NormDepthwiseS{stride}", [*inputs, weight], [small, *[(c,)] * 4])
    for one, other in zip(found, [y, *expected]):
        assert_close(one, other, 3e-6)
    dy = random(*small, seed=3)
    dz, dweight = kernels(f"DepthwiseBackwardS{stride}", [z, weight, dy], [shape, weight.shape])
    norm = kernels("BatchNormTrainBackwardReLU6", [x, gamma, beta, *expected[:2], dz], [shape, (c,), (c,)])
    sizes = [shape, (c,), (c,), weight.shape]
    joined = kernels(f"NormDepthwiseBackwardS{stride}", [x, gamma, beta, *expected[:2], weight, dy], sizes)
    for one, other in zip(joined, [*norm, dweight]):
        assert_close(one, other, 1e-5)


BLOCKS = [(70, 19, 2, 2, 32), (3, 16, 5, 7, 96), (1, 8, 37, 70, 48), (300, 24, 1, 1, 64), (5, 33, 14, 14, 80)]


def inverted_residual(x, expand, filters, project, *norms, stride, has_shortcut):
    """In float64; `norms`: factor and shift, three times."""
    x = np.asarray(x, np.float64)
    z = np.clip(batch_normalized(np.einsum("ec,nchw->nehw", expand[..., 0, 0], x), *norms[:2]), 0, 6)
    z = np.clip(batch_normalized(depthwise(z, filters, stride), *norms[2:4]), 0, 6)
    y = batch_normalized(np.einsum("oe,nehw->nohw", project[..., 0, 0], z), *norms[4:])
    return y + x if has_shortcut else y


class Block:
    """An inverted residual block of random numbers, and its kernels' results."""

    def __init__(self, kernels, shape, variant, dtype="", beta=1.0):
        n, c, h, w, hidden = shape
        self.stride, self.has_shortcut = int(variant[1]), variant == "S1Sum"
        out = c if self.has_shortcut else 21
        x = random(n, c, h, w) + random(1, c, 1, 1)
        weights = [random(hidden, c, 1, 1) / 3, random(hidden, 1, 3, 3), random(out, hidden, 1, 1) / 4]
        gammas, betas, self.means = ([random(side, seed=seed) for side in (hidden, hidden, out)] for seed in range(3))
        gammas, betas = [1 + gamma / 4 for gamma in gammas], [beta + found / 4 for found in betas]
        self.variances = [np.abs(random(side, seed=3)) for side in (hidden, hidden, out)]
        norms = [array for four in zip(gammas, betas, self.means, self.variances) for array in four]
        small = (n, (h - 1) // self.stride + 1, (w - 1) // self.stride + 1)
        vectors = [(side,) for side in (hidden, hidden, out) for _ in range(4)]
        sizes = [(*small, out), (*small, hidden), (*small, out), (c,), (c, hidden), *vectors]
        last = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
        y, filtered, projected, centre, spread, *self.moments = kernels(
            f"InvertedResidual{dtype}{variant}", [last, *weights, *norms, np.array([1e-5, 0.9], np.float32)], sizes
        )
        self.arrays = [x, *weights, *(array for pair in zip(gammas, betas) for array in pair)]
        read = [gammas[0], betas[0], gammas[1], betas[1], gammas[2], centre, spread]
        read += [self.moments[index] for index in (0, 1, 4, 5, 8, 9)]
        shapes = [last.shape, *(array.shape for array in self.arrays[1:]), filtered.shape]
        dy = random(*y.shape, seed=1)
        dx, *gradients, _ = kernels(
            f"InvertedResidual{dtype}Backward{variant}", [last, *weights, *read, filtered, projected, dy], shapes
        )
        self.y, self.dy = y.transpose(0, 3, 1, 2), dy.transpose(0, 3, 1, 2)
        self.gradients = [dx.transpose(0, 3, 1, 2), *gradients]

    def exact(self, *arrays):
        return inverted_residual(*arrays, stride=self.stride, has_shortcut=self.has_shortcut)


@pytest.mark.parametrize("variant", ["S1", "S1Sum", "S2"])
@pytest.mark.parametrize("shape", BLOCKS)
def test_inverted_residual(kernels, shape, variant):
    block = Block(kernels, shape, variant)
    assert_close(block.y, block.exact(*block.arrays))
    middle = np.einsum("ec,nchw->nehw", block.arrays[1][..., 0, 0].astype(np.float64), block.arrays[0])
    assert_close(block.moments[2], 0.9 * block.means[0] + 0.1 * middle.mean((0, 2, 3)), 1e-5)
    assert_close(block.moments[3], 0.9 * block.variances[0] + 0.1 * middle.var((0, 2, 3), ddof=1), 1e-5)
    assert_slopes(block.gradients, lambda *arrays: (block.exact(*arrays) * block.dy).sum(), block.arrays, 5e-4)


@pytest.mark.parametrize("variant", ["S1", "S1Sum", "S2"])
@pytest.mark.parametrize("shape", BLOCKS)
def test_inverted_residual_in_bfloat16(kernels, shape, variant):
    """Between the bends of ReLU6, beside which a gradient passes or not by the last digit."""
    exact, rounded = (Block(kernels, shape, variant, dtype, beta=3.0) for dtype in ("", "Bfloat16"))
    assert np.linalg.norm(rounded.y - exact.y) <= 0.005 * np.linalg.norm(exact.y)
    pixels = shape[0] * shape[2] * shape[3]
    for number, (found, expected) in enumerate(zip(rounded.gradients, exact.gradients)):
        error = np.linalg.norm(found - expected)
        assert error <= 0.06 * (pixels * expected.size) ** 0.5
        if number in (0, 1, 3):  # the others are close to 0 where a normalisation follows
            assert error <= 0.04 * np.linalg.norm(expected)
    assert (rounded.y != exact.y).any()


def test_bfloat16_is_fast_where_the_processor_has_it(native):
    flags = Path("/proc/cpuinfo").read_text().split() if platform.machine() == "x86_64" else []
    assert native_kernels.load(native).library.HasBfloat16() == ("avx512_bf16" in flags)


def test_momentum_and_moving_average_of_many_tensors(kernels):
    shapes, rate, momentum, decays = [(33, 7), (1,), (2, 3, 5)], 0.1, 0.9, [0.01, 0.0, 0.5]
    weights, moments, gradients, averages = ([random(*s, seed=seed) for s in shapes] for seed in range(4))
    expected_moments = [
        momentum * m + g + d * w.astype(np.float64) for w, m, g, d in zip(weights, moments, gradients, decays)
    ]
    expected = [w - rate * m for w, m in zip(weights, expected_moments)]
    expected_averages = [0.75 * a + 0.25 * w for a, w in zip(averages, expected)]
    numbers = [np.array(rate, np.float32), np.array(momentum, np.float32), np.array(decays, np.float32)]
    for name, arrays, written in (
        ("MomentumUpdate", [*numbers, *weights, *moments, *gradients], [*expected, *expected_moments]),
        ("MovingAverage", [np.array([0.75], np.float32), *averages, *expected], expected_averages),
    ):
        arrays = [array.astype(np.float32) for array in arrays]  # a process of its own may work on copies
        assert kernels.refusal(name, [*arrays, done := np.zeros(1, np.float32)]) == "" and done[0] == 1
        if isinstance(kernels, native_kernels.EmulatedKernels):
            continue
        first = len(numbers) if name == "MomentumUpdate" else 1
        for found, wanted in zip(arrays[first:], written):
            assert_close(found, wanted, 1e-6)


def results(library: Path, threads: int, **extra: str) -> str:
    """The hash that native_kernels prints in a process of its own."""
    threading = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    env = {**os.environ, "PYTHONPATH": str(ROOT), **threading, **extra}
    command = [sys.executable, native_kernels.__file__, str(library)]
    ended = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_threads_do_not_change_a_bit(library):
    one, again, two, three = (results(library, threads) for threads in (1, 1, 2, 3))
    assert one == again == two == three


@pytest.mark.parametrize("library", [AARCH64], indirect=True)
def test_kernels_use_vectors_of_neon(library):
    """Multiplications with addition of four floats at once outnumber those of one."""
    command = ["aarch64-linux-gnu-objdump", "--disassemble", library]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    four, one = re.findall(r"\tfml[as]\tv\d+\.4s", said), re.findall(r"\tf(?:madd|msub|nmadd|nmsub)\ts", said)
    assert len(four) > len(one), (len(four), len(one))


def test_sanitizers_find_nothing(native, tmp_path):
    compiler = build._compiler()
    found = subprocess.run([*compiler, "-print-file-name=libasan.so"], capture_output=True, text=True, check=False)
    if not Path(found.stdout.strip()).is_absolute():
        pytest.skip(f"{compiler[0]} comes without its address sanitizer")
    checks = ["-O1", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    checked = compiled(tmp_path / "checked.so", *checks, without="-O3")
    # The sanitizer has to find what throws C++ exceptions when it starts.
    standard = subprocess.run(
        [*compiler, "-print-file-name=libstdc++.so.6"], capture_output=True, text=True, check=True
    )
    extra = {
        "LD_PRELOAD": f"{found.stdout.strip()} {standard.stdout.strip()}",
        "ASAN_OPTIONS": "detect_leaks=0",
        "PYTHONMALLOC": "malloc",
    }
    assert len(results(checked, 2, **extra).strip()) == 64
