"""The compiled CPU kernels called from numpy, without MindSpore: python tests/native_kernels.py LIBRARY.

As a program it calls every kernel on awkward shapes and with wrong tensors, and prints a hash of all results, to be run
under sanitizers and with different numbers of threads.
"""

from __future__ import annotations

import ctypes
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np

from src.cpu_kernels.checking import Refused, check_count, check_types, output_shapes
from src.cpu_kernels.operators import OPERATORS
from tests.aarch64 import emulation

# Images, channels, height, width. Nothing fills a vector; planes of one pixel, planes small enough to be put side by
# side, planes of several blocks of pixels (batch_norm.h: 4096, matrix.h: 1024,
# channel_norm.cc: 256), one image and more, planes of which several make a tile (channel_blocks.h).
SHAPES = [
    (2, 19, 9, 13),
    (1, 50, 37, 41),
    (3, 19, 5, 7),
    (1, 3, 130, 131),
    (2, 17, 1, 1),
    (70, 33, 2, 2),
    (9, 18, 4, 4),
]
Shape = tuple[int, int, int, int]
HEADS, CLASSES = 2, 5
DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16}
KERNELS = {
    f"{kernel.name}{variant}": (kernel, variant)
    for entry in OPERATORS.values()
    for kernel in entry.kernels()
    for variant in kernel.variants
}


class Kernels:
    """`kernels(name, inputs, output_shapes)` calls one kernel; its refusal raises ValueError."""

    def __init__(self, path: Path | str):
        self.library = ctypes.CDLL(str(path))
        self.library.CallKernel.restype = ctypes.c_char_p

    def __call__(self, name: str, inputs: list[np.ndarray], shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
        inputs = [np.asarray(array, order="C") for array in inputs]
        types = [output.dtype for output in KERNELS[name][0].outputs]
        outputs = [np.full(shape, np.nan, DTYPES[dtype]) for shape, dtype in zip(shapes, types)]  # so that a gap shows
        refusal = self.refusal(name, [*inputs, *outputs])
        if refusal:
            raise ValueError(refusal)
        return outputs

    def refusal(self, name: str, arrays: list[np.ndarray]) -> str:
        """The sentence with which a kernel refuses its inputs and outputs; empty if it has done its work."""
        count = len(arrays)
        dims = [(ctypes.c_int64 * array.ndim)(*array.shape) for array in arrays]
        sentence = self.library.CallKernel(
            getattr(self.library, name),
            count,
            (ctypes.c_void_p * count)(*(array.ctypes.data for array in arrays)),
            (ctypes.c_int * count)(*(array.ndim for array in arrays)),
            (ctypes.POINTER(ctypes.c_int64) * count)(*(ctypes.cast(d, ctypes.POINTER(ctypes.c_int64)) for d in dims)),
            (ctypes.c_char_p * count)(*(array.dtype.name.encode() for array in arrays)),
        )
        return (sentence or b"").decode()


class EmulatedKernels(Kernels):
    """A library for aarch64 on a machine that is none."""

    def __init__(self, path: Path | str):
        self.process = emulation.Process(path)

    def refusal(self, name: str, arrays: list[np.ndarray]) -> str:
        return self.process.call(name, arrays)


def load(path: Path | str) -> Kernels:
    """The kernels of a library, for whichever machine it is compiled."""
    return (EmulatedKernels if emulation.is_foreign(path) else Kernels)(path)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((seed, *shape)).standard_normal(shape).astype(np.float32)


def call_mobile(kernels: Kernels, shape: Shape) -> list[np.ndarray]:
    """Convolutions and batch normalisation of MobileNet-like networks."""
    n, c, h, w = shape
    x, found = random(*shape), []
    for stride in (1, 2):
        small = (n, c, (h - 1) // stride + 1, (w - 1) // stride + 1)
        weight = random(c, 1, 3, 3)
        found += kernels(f"DepthwiseS{stride}", [x, weight], [small])
        found += kernels(f"DepthwiseBackwardS{stride}", [x, weight, random(*small)], [shape, weight.shape])
    for out in (3, 50):
        weight, dy = random(out, c, 1, 1), random(n, out, h, w)
        found += kernels("Pointwise", [x, weight], [dy.shape])
        found += kernels("PointwiseBackward", [x, weight, dy], [shape, weight.shape])
    gamma, variance, settings = random(c), np.abs(random(c)) + 1, np.array([1e-5, 0.9], np.float32)
    vectors = [gamma, random(c, seed=1), random(c, seed=2), variance, settings]
    for suffix in ("Linear", "ReLU", "ReLU6"):
        y, mean, scale, *moved = kernels(f"BatchNormTrain{suffix}", [x, *vectors], [shape, (c,), (c,), (c,), (c,)])
        backward = [x, gamma, vectors[1], mean, scale, y]
        found += [y, mean, scale, *moved]
        found += kernels(f"BatchNormTrainBackward{suffix}", backward, [shape, (c,), (c,)])
        found += kernels(f"BatchNormInfer{suffix}", [x, *vectors], [shape])
        found += kernels(f"BatchNormInferBackward{suffix}", [x, *vectors, y], [shape, (c,), (c,)])
    for stride in (1, 2):
        weight, small = random(c, 1, 3, 3), (n, c, (h - 1) // stride + 1, (w - 1) // stride + 1)
        found += kernels(f"NormDepthwiseS{stride}", [x, *vectors, weight], [small, (c,), (c,), (c,), (c,)])
        backward = [x, gamma, vectors[1], *found[-4:-2], weight, random(*small)]
        found += kernels(f"NormDepthwiseBackwardS{stride}", backward, [shape, (c,), (c,), weight.shape])
    return found


def call_blocks(kernels: Kernels, shape: Shape) -> list[np.ndarray]:
    """Inverted residual blocks, channels last."""
    n, c, h, w = shape
    found = kernels("ChannelsLast", [random(*shape)], [(n, h, w, c)])
    found += kernels("ChannelsLastBackward", found[:1], [shape])
    found += kernels("ChannelsFirst", found[:1], [shape])
    found += kernels("ChannelsFirstBackward", [found[1]], [(n, h, w, c)])
    last, hidden, settings = found[0], (32, 64)[c % 2], np.array([1e-5, 0.9], np.float32)
    for dtype, variant, stride, out in (
        ("", "S1", 1, c + 3),
        ("", "S1Sum", 1, c),
        ("", "S2", 2, 21),
        ("Bfloat16", "S1", 1, c + 3),
        ("Bfloat16", "S1Sum", 1, c),
        ("Bfloat16", "S2", 2, 21),
    ):
        small = (n, (h - 1) // stride + 1, (w - 1) // stride + 1)
        weights = [random(hidden, c, 1, 1), random(hidden, 1, 3, 3), random(out, hidden, 1, 1)]
        norms = [np.abs(random(side, seed=seed)) for side in (hidden, hidden, out) for seed in range(4)]
        moments = [(side,) for side in (hidden, hidden, out) for _ in range(4)]
        sizes = [(*small, out), (*small, hidden), (*small, out), (c,), (c, hidden), *moments]
        y, filtered, projected, centre, spread, *moments = kernels(
            f"InvertedResidual{dtype}{variant}", [last, *weights, *norms, settings], sizes
        )
        read = [norms[0], norms[1], norms[4], norms[5], norms[8], centre, spread]
        read += [moments[index] for index in (0, 1, 4, 5, 8, 9)]
        backward = [last, *weights, *read, filtered, projected, random(*y.shape)]
        vectors = [(side,) for side in (hidden, hidden, hidden, hidden, out, out)]
        shapes = [last.shape, *(weight.shape for weight in weights), *vectors, filtered.shape]
        found += [y, filtered, projected, centre, spread, *moments]
        found += kernels(f"InvertedResidual{dtype}Backward{variant}", backward, shapes)
    return found


def call_layers(kernels: Kernels, shape: Shape) -> list[np.ndarray]:
    """Dense layers, layer normalisation and the larger convolutions on maps."""
    n, c, h, w = shape
    x, found = random(*shape), []
    for out in (3, 50):
        weight, bias, y_shape = random(out, c), random(out), (n, out, h, w)
        residual, keep = random(*y_shape), np.linspace(1, 0, n).astype(np.float32)
        found += kernels("Dense", [x, weight, bias], [y_shape])
        found += kernels("DenseBackward", [x, weight, residual], [shape, weight.shape, (out,)])
        found += kernels("DenseResidual", [x, weight, bias, residual, keep], [y_shape])
        found += kernels("DenseResidualBackward", [x, weight, keep, residual], [shape, weight.shape, (out,)])
    eps, gamma = np.array([1e-6], np.float32), random(c)
    _, mean, scale = kernels("ChannelNorm", [x, gamma, random(c), eps], [shape, (n, h, w), (n, h, w)])
    found += [mean, scale]
    found += kernels("ChannelNormBackward", [x, gamma, mean, scale, random(*shape)], [shape, (c,), (c,)])
    weight, bias = random(c, 1, 3, 3), random(c)
    found += kernels("DepthwiseGelu", [x, weight, bias], [shape])
    found += kernels("DepthwiseGeluBackward", [x, weight, bias, random(*shape)], [shape, weight.shape, (c,)])
    for kernel, stride, padding in ((7, 4, 3), (3, 2, 1), (4, 4, 0)):
        if min(h, w) + 2 * padding < kernel:
            continue
        weight, settings = random(6, c, kernel, kernel), np.array([stride, padding], np.float32)
        y_shape = (n, 6, *((side + 2 * padding - kernel) // stride + 1 for side in (h, w)))
        found += kernels("Conv", [x, weight, random(6), settings], [y_shape])
        found += kernels("ConvBackward", [x, weight, settings, random(*y_shape)], [shape, weight.shape, (6,)])
    return found


def call_head(kernels: Kernels, shape: Shape) -> list[np.ndarray]:
    """Attention, the sum of resized maps and the loss."""
    n, c, h, w = shape
    q, kv, heads = random(n, 2 * c, h, w), random(n, 4 * c, 3, 4), np.array([HEADS], np.float32)
    y, logs = kernels("Attention", [q, kv, heads], [q.shape, (n, HEADS, h * w)])
    found = [y, logs]
    found += kernels("AttentionBackward", [q, kv, heads, y, logs, random(*q.shape)], [q.shape, kv.shape])
    maps = [random(n, c, *size) for size in ((h, w), (5, 7), (3, 4), (1, 1))]
    found += kernels("ResizeSum", maps, [shape])
    found += kernels("ResizeSumBackward", [*maps, random(*shape)], [m.shape for m in maps[1:]])
    logits, label = random(n, CLASSES, h, w), np.arange(n * 33 * 50, dtype=np.int32).reshape(n, 33, 50) % CLASSES
    label[:, :3] = 255
    weights, ignore = np.ones(CLASSES, np.float32), np.array([255], np.float32)
    return found + kernels("PixelLoss", [logits, label, weights, ignore], [(1,), logits.shape])


def call_quantised(kernels: Kernels, shape: Shape) -> list[np.ndarray]:
    """Fake quantisation, and the layers on whole numbers."""
    n, c, h, w = shape
    x, weight, found = random(*shape) * 3, random(c, 1, 3, 3), []
    limits, extent = np.array([-128, 127], np.float32), np.array([-1.5, 2.5], np.float32)
    long_rows = random(2, 40_000)  # a row of several parts (grids.h: 32768)
    for tensor, scale in ((x, random(1)), (weight, random(c)), (long_rows, random(2))):
        scale = np.abs(scale) / 50
        zero_point = np.zeros_like(scale)
        found += kernels("FakeQuant", [tensor, scale, zero_point, limits], [tensor.shape, (2,)])
        backward = [tensor, scale, zero_point, limits, tensor]
        found += kernels("FakeQuantBackward", backward, [tensor.shape, scale.shape])
    settings = np.array([-128, 127, 0, 0.9], np.float32)
    found += kernels("RangeFakeQuant", [x, extent, settings], [shape, (2,), (1,), (1,)])
    found += kernels("RangeFakeQuantBackward", [x, settings, *found[-2:], x], [shape])
    gamma, variance = random(c), np.abs(random(c)) + 1
    settings = np.array([-127, 127, 1, 1, 1e-5], np.float32)
    found += kernels("FoldedFakeQuant", [weight, gamma, variance, settings], [weight.shape, (c,)])
    found += kernels("FoldedFakeQuantBackward", [weight, gamma, found[-1], settings, weight], [weight.shape, (c,)])
    vectors = [gamma, random(c, seed=1), random(c, seed=2), variance]
    one = np.ones(1, np.float32)
    for learned, scale in ((1, np.abs(gamma)), (1, one), (0, one)):
        settings = np.array([-127, 127, 1, 1, 1e-5, learned], np.float32)
        inputs = [weight, *vectors, scale, one / 50, one / 40, settings]
        found += kernels("IntFilters", inputs, [weight.shape, (c,), (c,)])
    found += kernels("IntRequantise", [np.rint(x * 900), *found[-2:], limits], [shape])
    numbers = np.array([3, 130, 0.7, 0.9, 128, 0, 255], np.float32)
    return found + kernels("IntSum", [found[-1], found[-1][::-1].copy(), numbers], [shape])


def call_updates(kernels: Kernels, shape: Shape) -> list[np.ndarray]:
    """The update of all parameters, which are written in place."""
    shapes = [shape, (shape[1],), (1,)]
    weights, moments, gradients, averages = ([random(*s, seed=seed) for s in shapes] for seed in range(4))
    rate, momentum, decays = np.array(0.1, np.float32), np.array(0.9, np.float32), np.array([0.01, 0, 0], np.float32)
    found = kernels("MomentumUpdate", [rate, momentum, decays, *weights, *moments, *gradients], [(1,)])
    found += kernels("MovingAverage", [np.array([0.99], np.float32), *averages, *weights], [(1,)])
    return [*found, *weights, *moments, *averages]


CALLS = (call_mobile, call_blocks, call_layers, call_head, call_quantised, call_updates)


class Recorder(Kernels):
    """Remembers the tensors, inputs and outputs, of the last call of every kernel."""

    def __init__(self, kernels: Kernels):
        self.kernels = kernels
        self.calls: dict[str, list[np.ndarray]] = {}

    def refusal(self, name: str, arrays: list[np.ndarray]) -> str:
        self.calls[name] = [array.copy() for array in arrays]
        return self.kernels.refusal(name, arrays)


def good_calls(kernels: Kernels) -> dict[str, list[np.ndarray]]:
    """One good call of every kernel: its inputs and outputs."""
    recorder = Recorder(kernels)
    for call in CALLS:
        call(recorder, SHAPES[0])
    return recorder.calls


def bad_calls(good: dict[str, list[np.ndarray]]) -> Iterator[tuple[str, str, list[np.ndarray]]]:
    """Every tensor of every kernel in turn made unlike what it should be: kernel, what is wrong, tensors."""
    for name, arrays in good.items():
        yield name, "missing", arrays[:-1]
        for number, array in enumerate(arrays):
            wrong = {
                "another dimension": array[None],
                "empty": np.atleast_1d(array)[:0],
                "another type": array.astype(np.float64),
                "longer": np.concatenate([np.atleast_1d(array), np.atleast_1d(array)[:1]]),
            }
            for kind, changed in wrong.items():
                yield name, f"{kind}: {number}", [*arrays[:number], changed, *arrays[number + 1 :]]


def expected_refusal(name: str, arrays: list[np.ndarray]) -> str:
    """The sentence of the check in Python for the tensors of a kernel; empty if they fit."""
    kernel, variant = KERNELS[name]
    numbers = {
        number: float(value)
        for argument, array in zip(kernel.arguments, arrays)
        for number, value in zip(argument.numbers, array.reshape(-1))
    }
    try:
        check_count(kernel, variant, len(arrays))
        kernel = kernel.of(len(arrays) - len(kernel.outputs))
        check_types(kernel, variant, [array.dtype.name for array in arrays])
        output_shapes(kernel, variant, [array.shape for array in arrays], numbers)
    except Refused as refusal:
        return str(refusal)
    return ""


def main(path: str) -> None:
    kernels, digest = load(path), hashlib.sha256()
    for shape in SHAPES:
        for call in CALLS:
            for number, array in enumerate(call(kernels, shape)):
                assert np.isfinite(array).all(), f"{call.__name__}, {shape}: result {number} is not finite"
                digest.update(array.tobytes())
    for name, kind, arrays in bad_calls(good_calls(kernels)):
        assert kernels.refusal(name, arrays), f"{name} takes what is {kind}"
    print(digest.hexdigest())


if __name__ == "__main__":
    main(sys.argv[1])
