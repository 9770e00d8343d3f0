"""The compiled CPU kernels called from numpy, without MindSpore: python tests/native_kernels.py LIBRARY.

As a program it calls every kernel once on awkward shapes and prints a hash of all results, to be run under sanitizers
and with different numbers of threads.
"""

from __future__ import annotations

import ctypes
import hashlib
import sys
from pathlib import Path

import numpy as np

SHAPE = (2, 19, 9, 13)  # images, channels, height, width: nothing fills a vector
HEADS, CLASSES = 2, 5


class Kernels:
    """`kernels(name, inputs, output_shapes)` calls one kernel; a status other than 0 raises ValueError."""

    def __init__(self, path: Path | str):
        self.library = ctypes.CDLL(str(path))

    def __call__(self, name: str, inputs: list[np.ndarray], shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
        inputs = [np.ascontiguousarray(array) for array in inputs]
        outputs = [np.full(shape, np.nan, np.float32) for shape in shapes]  # so that a gap shows
        arrays = [*inputs, *outputs]
        count = len(arrays)
        dims = [(ctypes.c_int64 * array.ndim)(*array.shape) for array in arrays]
        status = getattr(self.library, name)(
            count,
            (ctypes.c_void_p * count)(*(array.ctypes.data for array in arrays)),
            (ctypes.c_int * count)(*(array.ndim for array in arrays)),
            (ctypes.POINTER(ctypes.c_int64) * count)(*(ctypes.cast(d, ctypes.POINTER(ctypes.c_int64)) for d in dims)),
            (ctypes.c_char_p * count)(*(array.dtype.name.encode() for array in arrays)),
            None,
            None,
        )
        if status:
            raise ValueError(f"{name} returned {status}")
        return outputs


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((seed, *shape)).standard_normal(shape).astype(np.float32)


def call_mobile(kernels: Kernels) -> list[np.ndarray]:
    """Convolutions and batch normalisation of kernels.cc."""
    n, c, h, w = SHAPE
    x, found = random(*SHAPE), []
    for stride in (1, 2):
        small = (n, c, (h - 1) // stride + 1, (w - 1) // stride + 1)
        weight = random(c, 1, 3, 3)
        found += kernels(f"DepthwiseForwardS{stride}", [x, weight], [small])
        found += kernels(f"DepthwiseBackwardS{stride}", [x, weight, random(*small)], [SHAPE, weight.shape])
    for out in (3, 50):
        weight, dy = random(out, c, 1, 1), random(n, out, h, w)
        found += kernels("PointwiseForward", [x, weight], [dy.shape])
        found += kernels("PointwiseBackward", [x, weight, dy], [SHAPE, weight.shape])
    gamma, variance, settings = random(c), np.abs(random(c)) + 1, np.array([1e-5, 0.9], np.float32)
    vectors = [gamma, random(c, seed=1), random(c, seed=2), variance, settings]
    for suffix in ("Linear", "ReLU6"):
        y, mean, scale, *moved = kernels(f"BatchNormTrain{suffix}", [x, *vectors], [SHAPE, (c,), (c,), (c,), (c,)])
        backward = [x, gamma, vectors[1], mean, scale, y]
        found += [y, mean, scale, *moved]
        found += kernels(f"BatchNormTrainBackward{suffix}", backward, [SHAPE, (c,), (c,)])
        found += kernels(f"BatchNormInfer{suffix}", [x, *vectors], [SHAPE])
        found += kernels(f"BatchNormInferBackward{suffix}", [x, *vectors, y], [SHAPE, (c,), (c,)])
    for stride in (1, 2):
        weight, small = random(c, 1, 3, 3), (n, c, (h - 1) // stride + 1, (w - 1) // stride + 1)
        found += kernels(f"NormDepthwiseS{stride}", [x, *vectors, weight], [small, (c,), (c,), (c,), (c,)])
        backward = [x, gamma, vectors[1], *found[-4:-2], weight, random(*small)]
        found += kernels(f"NormDepthwiseBackwardS{stride}", backward, [SHAPE, (c,), (c,), weight.shape])
    return found


def call_layers(kernels: Kernels) -> list[np.ndarray]:
    """Dense layers, layer normalisation and the larger convolutions on maps."""
    n, c, h, w = SHAPE
    x, found = random(*SHAPE), []
    for out in (3, 50):
        weight, bias, y_shape = random(out, c), random(out), (n, out, h, w)
        residual, keep = random(*y_shape), np.array([1.25, 0.0], np.float32)
        found += kernels("DenseForward", [x, weight, bias], [y_shape])
        found += kernels("DenseBackward", [x, weight, residual], [SHAPE, weight.shape, (out,)])
        found += kernels("DenseResidualForward", [x, weight, bias, residual, keep], [y_shape])
        found += kernels("DenseResidualBackward", [x, weight, keep, residual], [SHAPE, weight.shape, (out,)])
    eps, gamma = np.array([1e-6], np.float32), random(c)
    _, mean, scale = kernels("ChannelNormForward", [x, gamma, random(c), eps], [SHAPE, (n, h, w), (n, h, w)])
    found += [mean, scale]
    found += kernels("ChannelNormBackward", [x, gamma, mean, scale, random(*SHAPE)], [SHAPE, (c,), (c,)])
    weight, bias = random(c, 1, 3, 3), random(c)
    found += kernels("DepthwiseGeluForward", [x, weight, bias], [SHAPE])
    found += kernels("DepthwiseGeluBackward", [x, weight, bias, random(*SHAPE)], [SHAPE, weight.shape, (c,)])
    for kernel, stride, padding in ((7, 4, 3), (3, 2, 1), (4, 4, 0)):
        weight, settings = random(6, c, kernel, kernel), np.array([stride, padding], np.float32)
        y_shape = (n, 6, *((side + 2 * padding - kernel) // stride + 1 for side in (h, w)))
        found += kernels("ConvForward", [x, weight, random(6), settings], [y_shape])
        found += kernels("ConvBackward", [x, weight, settings, random(*y_shape)], [SHAPE, weight.shape, (6,)])
    return found


def call_head(kernels: Kernels) -> list[np.ndarray]:
    """Attention, the sum of resized maps and the loss."""
    n, c, h, w = SHAPE
    q, kv, heads = random(n, 2 * c, h, w), random(n, 4 * c, 3, 4), np.array([HEADS], np.float32)
    y, logs = kernels("AttentionForward", [q, kv, heads], [q.shape, (n, HEADS, h * w)])
    found = [y, logs]
    found += kernels("AttentionBackward", [q, kv, heads, y, logs, random(*q.shape)], [q.shape, kv.shape])
    maps = [random(n, c, *size) for size in ((h, w), (5, 7), (3, 4), (1, 1))]
    found += kernels("ResizeSumForward", maps, [SHAPE])
    found += kernels("ResizeSumBackward", [*maps, random(*SHAPE)], [m.shape for m in maps[1:]])
    logits, label = random(n, CLASSES, h, w), np.arange(n * 33 * 50, dtype=np.int32).reshape(n, 33, 50) % CLASSES
    label[:, :3] = 255
    weights, ignore = np.ones(CLASSES, np.float32), np.array([255], np.float32)
    return found + kernels("PixelLoss", [logits, label, weights, ignore], [(1,), logits.shape])


def call_quantised(kernels: Kernels) -> list[np.ndarray]:
    """Fake quantisation, and the layers on whole numbers."""
    n, c, h, w = SHAPE
    x, weight, found = random(*SHAPE) * 3, random(c, 1, 3, 3), []
    limits, extent = np.array([-128, 127], np.float32), np.array([-1.5, 2.5], np.float32)
    for scale in (np.array([0.01], np.float32), np.abs(random(c)) / 50):
        zero_point = np.zeros_like(scale)
        tensor = x if len(scale) == 1 else weight
        found += kernels("FakeQuantForward", [tensor, scale, zero_point, limits], [tensor.shape, (2,)])
        backward = [tensor, scale, zero_point, limits, tensor]
        found += kernels("FakeQuantBackward", backward, [tensor.shape, scale.shape])
    settings = np.array([-128, 127, 0, 0.9], np.float32)
    found += kernels("RangeFakeQuantForward", [x, extent, settings], [SHAPE, (2,), (1,), (1,)])
    gamma, variance = random(c), np.abs(random(c)) + 1
    settings = np.array([-127, 127, 1, 1, 1e-5], np.float32)
    found += kernels("FoldedFakeQuantForward", [weight, gamma, variance, settings], [weight.shape, (c,)])
    found += kernels("FoldedFakeQuantBackward", [weight, gamma, found[-1], settings, weight], [weight.shape, (c,)])
    vectors = [gamma, random(c, seed=1), random(c, seed=2), variance]
    one, settings = np.ones(1, np.float32), np.array([-127, 127, 1, 1, 1e-5, 0], np.float32)
    found += kernels("WholeFilters", [weight, *vectors, one, one / 50, one / 40, settings], [weight.shape, (c,), (c,)])
    found += kernels("WholeRequantise", [np.rint(x * 900), *found[-2:], limits], [SHAPE])
    numbers = np.array([3, 130, 0.7, 0.9, 128, 0, 255], np.float32)
    return found + kernels("WholeSum", [found[-1], found[-1][::-1].copy(), numbers], [SHAPE])


def main(path: str) -> None:
    kernels, digest = Kernels(path), hashlib.sha256()
    for array in (*call_mobile(kernels), *call_layers(kernels), *call_head(kernels), *call_quantised(kernels)):
        assert np.isfinite(array).all()
        digest.update(array.tobytes())
    print(digest.hexdigest())


if __name__ == "__main__":
    main(sys.argv[1])
