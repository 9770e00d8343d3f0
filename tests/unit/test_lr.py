"""The learning rate schedule: golden numbers of the shipped recipes and its exact length."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.mobilenetv2.lr_generator import Rates, get_lr


def test_ascend_recipe_gives_the_documented_log_values():
    lr = get_lr(Rates(0.0, 0.0, 0.4), warmup_epochs=4, total_epochs=200, steps_per_epoch=625)
    assert len(lr) == 125_000
    assert lr[0] == 0
    assert f"{lr[624]:.3f}" == "0.100"
    assert f"{lr[1249]:.3f}" == "0.200"
    assert lr[2500] == np.float32(0.4)
    assert lr[624] == pytest.approx(0.09984, abs=1e-7)
    assert 0 <= lr[-1] < 1e-8


def test_cpu_recipe_is_constant():
    lr = get_lr(Rates(0.0, 0.03, 0.03), warmup_epochs=0, total_epochs=15, steps_per_epoch=33)
    assert (lr == np.float32(0.03)).all()


def test_golden_numbers():
    lr = get_lr(Rates(0.1, 0.2, 1.0), warmup_epochs=1, total_epochs=3, steps_per_epoch=4)
    expected = [0.1, 0.325, 0.55, 0.775, 1.0, 0.969552, 0.882843, 0.753073, 0.6, 0.446927, 0.317157, 0.230448]
    np.testing.assert_allclose(lr, expected, atol=1e-6)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.01, 1), st.integers(0, 5), st.integers(1, 9), st.integers(1, 50))
def test_length_and_range(lr_init, lr_end, lr_max, warmup, epochs, steps):
    lr = get_lr(Rates(lr_init, lr_end, lr_max), min(warmup, epochs), epochs, steps)
    assert lr.shape == (epochs * steps,)
    assert lr.dtype == np.float32
    assert lr.min() >= 0
    assert lr.max() <= max(lr_init, lr_end, lr_max) + 1e-6
