"""Fake quantisation against numpy: values bit for bit, gradients, moving ranges; operators and the CPU kernel."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.needs_mindspore
ms = pytest.importorskip("mindspore")

from mindspore import Tensor  # noqa: E402

from src.cpu_kernels import build  # noqa: E402
from src.quantisation.quantiser import (  # noqa: E402
    ActivationQuantiser,
    Grid,
    LearnedActivationQuantiser,
    LearnedWeightQuantiser,
    RangeSnap,
    Snap,
    WeightQuantiser,
    grid_over,
)


@pytest.fixture(scope="module", params=["operators", "kernel"])
def library(request):
    ms.set_context(mode=ms.GRAPH_MODE)
    ms.set_device("CPU")
    if request.param == "operators":
        return None
    try:
        return build.library_path()
    except build.KernelsUnavailable as reason:
        pytest.skip(f"the CPU kernels cannot be built here: {reason}")


def random(shape, seed=0, scale=3.0):
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def column(values, x):
    return values.reshape((-1,) + (1,) * (x.ndim - 1))


def reference(x, scale, zero_point, grid):
    """On the grid (float32), whether inside of it, and the clipped whole numbers."""
    scale, zero_point = column(scale, x), column(zero_point, x)
    whole = np.rint(x / scale) + zero_point
    clipped = np.clip(whole, grid.low, grid.high)
    return (clipped - zero_point) * scale, (whole >= grid.low) & (whole <= grid.high), clipped


def with_gradients(cell, inputs, dy):
    """cell(*inputs)[0], gradients of sum(result * dy) to the first two inputs, extremes."""

    def objective(x, scale, zero_point, dy):
        y, extremes = cell(x, scale, zero_point)
        return (y * dy).sum(), y, extremes

    gradient = ms.value_and_grad(objective, (0, 1), None, has_aux=True)

    @ms.jit
    def run(x, scale, zero_point, dy):
        return gradient(x, scale, zero_point, dy)

    (_, y, extremes), (dx, dscale) = run(*map(Tensor, (*inputs, dy)))
    return y.asnumpy(), dx.asnumpy(), dscale.asnumpy(), extremes.asnumpy()


@pytest.mark.parametrize(
    ("shape", "rows", "grid", "zero_point"),
    [
        ((3, 5, 7, 4), 1, Grid(8), -28),
        ((5, 3, 3, 3), 5, Grid(8, symmetric=True, narrow=True), 0),
        ((70000,), 1, Grid(4), 3),  # more than one item of the kernel
    ],
)
def test_values_and_gradients(library, shape, rows, grid, zero_point):
    x, dy = random(shape), random(shape, 1, 1.0)
    scale, zero_point = np.linspace(0.021, 0.03, rows, dtype=np.float32), np.full(rows, zero_point, np.float32)
    x.flat[:4] = [0, scale[0] / 2, scale[0] * 1.5, 1e9]  # two ties and a value far outside
    y, dx, dscale, extremes = with_gradients(Snap(grid, library), (x, scale, zero_point), dy)
    expected, inside, clipped = reference(x, scale, zero_point, grid)
    assert (y == expected).all()
    assert 0 < inside.mean() < 1
    np.testing.assert_allclose(dx, dy * inside, rtol=1e-6)
    step = dy.astype(np.float64) * (clipped - column(zero_point, x) - np.where(inside, x / column(scale, x), 0))
    np.testing.assert_allclose(dscale, step.reshape(rows, -1).sum(1), rtol=1e-4, atol=1e-4 * np.abs(step).sum())
    assert extremes.tolist() == [x.min(), x.max()]


def test_range_is_a_moving_average_and_a_batch_is_quantised_with_the_one_before(library):
    quantiser = ActivationQuantiser("q", Grid(8), 0.9, library).set_train(True)
    low, high = -6.0, 6.0
    for seed in range(3):
        x = random((4, 50), seed)
        scale, zero_point = (value.asnumpy() for value in quantiser.scale_and_zero_point())
        assert (quantiser(Tensor(x)).asnumpy() == reference(x, scale, zero_point, quantiser.grid)[0]).all()
        low, high = 0.9 * low + 0.1 * x.min(), 0.9 * high + 0.1 * x.max()
        np.testing.assert_allclose(quantiser.range.asnumpy(), [low, high], rtol=1e-6)
    quantiser.set_train(False)
    quantiser(Tensor(random((4, 50), 9)))
    np.testing.assert_allclose(quantiser.range.asnumpy(), [low, high], rtol=1e-6)


def test_scales_and_zero_points():
    def numbers(grid, low, high):
        ranges = Tensor([low], ms.float32), Tensor([high], ms.float32)
        scale, zero_point = grid_over(*ranges, *grid.numbers())
        return scale.asnumpy().item(), zero_point.asnumpy().item()

    assert numbers(Grid(8), 0.0, 6.0) == (np.float32(6.0) / np.float32(255), -128)
    assert numbers(Grid(8), 2.0, 6.0) == (np.float32(6.0) / np.float32(255), -128)  # 0 belongs to the range
    assert numbers(Grid(8), -1.0, 1.0)[1] in (-1, 0)
    assert numbers(Grid(8, symmetric=True, narrow=True), -2.0, 1.0) == (np.float32(4.0) / np.float32(254), 0)
    assert numbers(Grid(4, symmetric=True, narrow=True), -0.5, 0.7) == pytest.approx((0.1, 0))
    assert numbers(Grid(8), 0.0, 0.0)[0] > 0


@pytest.mark.parametrize("grid", [Grid(8), Grid(8, symmetric=True, narrow=True)], ids=str)
def test_activations_on_the_grid_of_their_range(library, grid):
    snap = RangeSnap(grid, 0.9, library).set_train(True)
    x, dy, extent = random((40, 1000)), random((40, 1000), 1), np.float32([-4.3, 5.1])

    def objective(x, extent, dy):
        y, moved = snap(x, extent)
        return (y * dy).sum(), y, moved

    (_, y, moved), (dx, dextent) = ms.jit(ms.value_and_grad(objective, (0, 1), has_aux=True))(
        Tensor(x), Tensor(extent), Tensor(dy)
    )
    numbers = (value.asnumpy() for value in grid_over(Tensor(extent[:1]), Tensor(extent[1:]), *grid.numbers()))
    expected, inside, _ = reference(x, *numbers, grid)
    assert (y.asnumpy() == expected).all()
    assert 0 < inside.mean() < 1
    np.testing.assert_allclose(dx.asnumpy(), dy * inside, rtol=1e-6)
    assert not dextent.asnumpy().any()
    np.testing.assert_allclose(moved.asnumpy(), 0.9 * extent + 0.1 * np.float32([x.min(), x.max()]), rtol=1e-6)


@pytest.mark.parametrize(
    ("grid", "per_channel"),
    [(Grid(8, symmetric=True, narrow=True), True), (Grid(4, symmetric=True), False), (Grid(8), False)],
    ids=str,
)
def test_weights_with_bn_folded_in(library, grid, per_channel):
    weight, dy = random((5, 3, 3, 3)), random((5, 3, 3, 3), 1)
    gamma, variance = np.float32([0.5, -2, 0, 1, 3]), np.float32([1, 0.3, 2, 1e-9, 7])
    quantiser = WeightQuantiser("w", grid, per_channel, library)

    def objective(weight, gamma, variance, dy):
        y = quantiser.through_fold(weight, gamma, variance)
        return (y * dy).sum(), y

    (_, y), (dweight, dgamma) = ms.jit(ms.value_and_grad(objective, (0, 1), has_aux=True))(
        *map(Tensor, (weight, gamma, variance, dy))
    )
    inverse_std = np.float32(1) / np.sqrt(variance + np.float32(1e-5))
    factor = column(gamma * inverse_std, weight)
    folded = weight * factor
    numbers = (value.asnumpy() for value in quantiser.scale_and_zero_point(Tensor(folded)))
    on_grid, inside, _ = reference(folded, *numbers, grid)
    divisor = np.where(factor == 0, np.float32(1), factor)
    assert (y.asnumpy() == on_grid / divisor).all()
    np.testing.assert_allclose(dweight.asnumpy(), dy * inside * (factor / divisor), rtol=1e-6)
    slope = inside * weight / divisor - np.where(factor == 0, 0, on_grid / divisor**2)
    expected = (dy * slope).reshape(5, -1).sum(1) * inverse_std
    magnitude = np.abs(dy * weight / divisor).reshape(5, -1).sum(1) * inverse_std
    np.testing.assert_array_less(np.abs(dgamma.asnumpy() - expected), 1e-6 * magnitude)


@pytest.mark.parametrize("per_channel", [True, False])
def test_weights_span_their_grid(library, per_channel):
    weight = random((4, 3, 3, 3))
    grid = Grid(8, symmetric=True, narrow=True)
    quantiser = WeightQuantiser("w", grid, per_channel, library)
    scale, zero_point = (value.asnumpy() for value in quantiser.scale_and_zero_point(Tensor(weight)))
    reach = np.abs(weight.reshape(4 if per_channel else 1, -1)).max(1)
    np.testing.assert_allclose(scale, reach / 127, rtol=1e-6)
    assert (quantiser(Tensor(weight)).asnumpy() == reference(weight, scale, zero_point, grid)[0]).all()


def test_learned_steps_begin_as_in_the_paper_and_are_trained(library):
    weight = random((4, 3, 3, 3))
    quantiser = LearnedWeightQuantiser("w", Grid(4, symmetric=True, narrow=True), 4, library).set_train(True)
    quantiser.start(weight)
    expected = 2 * np.abs(weight.reshape(4, -1)).mean(1) / np.sqrt(7)
    np.testing.assert_allclose(quantiser.scale.asnumpy(), expected, rtol=1e-6)

    def objective(weight):
        return (quantiser(weight) ** 2).sum()

    gradient = ms.value_and_grad(objective, None, quantiser.trainable_params())(Tensor(weight))[1][0].asnumpy()
    y, inside, clipped = reference(weight, expected.astype(np.float32), np.zeros(4, np.float32), quantiser.grid)
    step = 2 * y * (clipped - np.where(inside, weight / column(expected, weight), 0))
    np.testing.assert_allclose(gradient, step.reshape(4, -1).sum(1) / np.sqrt(27 * 7), rtol=1e-3)

    activations = LearnedActivationQuantiser("a", Grid(8), decay=0.9, after_relu6=False, library=library)
    activations.range.set_data(Tensor([0.0, 5.1], ms.float32))
    activations.start()
    assert activations.scale.asnumpy().item() == pytest.approx(0.02)
    assert activations.zero_point.asnumpy().item() == -128
