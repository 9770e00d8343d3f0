"""Fake quantisation against PyTorch's: values and gradients, per tensor and per channel, and learned steps."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = [pytest.mark.parity, pytest.mark.needs_mindspore]
ms = pytest.importorskip("mindspore")
torch = pytest.importorskip("torch")

from src.quantisation.quantiser import Grid, Snap  # noqa: E402
from tests.needs_mindspore import test_quantiser  # noqa: E402
from tests.needs_mindspore.test_quantiser import random, with_gradients  # noqa: E402

library = test_quantiser.library  # the fixture: operators and kernel
# PyTorch multiplies by 1 / scale where ONNX divides by the scale; with a power of two both are exact.
STEP = 2.0**-6


def by_torch(x, scale, zero_point, grid, dy, per_channel):
    """Value and gradient of torch.fake_quantize_per_*_affine."""
    value = torch.tensor(x, requires_grad=True)
    limits = (grid.low, grid.high)
    if per_channel:
        scales, points = torch.tensor(scale), torch.tensor(zero_point).int()
        result = torch.fake_quantize_per_channel_affine(value, scales, points, 0, *limits)
    else:
        result = torch.fake_quantize_per_tensor_affine(value, float(scale[0]), int(zero_point[0]), *limits)
    (result * torch.tensor(dy)).sum().backward()
    return result.detach().numpy(), value.grad.numpy()


@pytest.mark.parametrize("grid", [Grid(8), Grid(8, symmetric=True, narrow=True), Grid(4)], ids=str)
@pytest.mark.parametrize("per_channel", [False, True])
def test_values_and_gradients_are_those_of_torch(library, grid, per_channel):
    x, dy = random((6, 5, 9, 4)), random((6, 5, 9, 4), 1, 1.0)
    rows = 6 if per_channel else 1
    scale = (STEP * 2.0 ** np.arange(rows)).astype(np.float32)
    zero_point = np.zeros(rows, np.float32) if grid.symmetric else np.arange(rows, dtype=np.float32) - 3
    expected, gradient = by_torch(x, scale, zero_point, grid, dy, per_channel)
    y, dx, _, _ = with_gradients(Snap(grid, library), (x, scale, zero_point), dy)
    assert (y == expected).all()
    np.testing.assert_allclose(dx, gradient, rtol=1e-6)


@pytest.mark.parametrize("per_channel", [False, True])
def test_other_scales_differ_in_ties_only(library, per_channel):
    x, dy = random((6, 5, 90, 40)), random((6, 5, 90, 40), 1, 1.0)
    rows = 6 if per_channel else 1
    scale = np.linspace(0.0171, 0.0313, rows, dtype=np.float32)
    zero_point = np.full(rows, -7, np.float32)
    expected, _ = by_torch(x, scale, zero_point, Grid(8), dy, per_channel)
    y = with_gradients(Snap(Grid(8), library), (x, scale, zero_point), dy)[0]
    assert np.isclose(y, expected, rtol=1e-6, atol=1e-7).mean() > 0.9999
    assert np.abs(y - expected).max() <= 1.001 * scale.max()


def test_gradient_of_the_step_is_that_of_torch(library):
    """torch._fake_quantize_learnable_per_tensor_affine is PyTorch's LSQ; its gradient has no rounding at ties."""
    x, dy = random((6, 5, 9, 4)), random((6, 5, 9, 4), 1, 1.0)
    value, scale, zero_point = torch.tensor(x), torch.tensor([STEP], requires_grad=True), torch.tensor([3.0])
    result = torch._fake_quantize_learnable_per_tensor_affine(value, scale, zero_point, -128, 127, 1.0)
    (result * torch.tensor(dy)).sum().backward()
    numbers = np.float32([STEP]), np.float32([3])
    y, _, dscale, _ = with_gradients(Snap(Grid(8), library), (x, *numbers), dy)
    assert (y == result.detach().numpy()).all()
    np.testing.assert_allclose(dscale, scale.grad.numpy(), rtol=1e-4)
