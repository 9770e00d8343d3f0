"""Ranges of activations from histograms, for every method of calibration."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.quantisation import ranges
from src.quantisation.grid import Grid
from src.quantisation.ranges import SEARCHES, Histogram

GRIDS = [Grid(8), Grid(4), Grid(8, symmetric=True), Grid(4, symmetric=True)]


def histogram_of(values: np.ndarray) -> Histogram:
    made = Histogram.over(float(values.min()), float(values.max()))
    for part in np.array_split(values, 3):
        made.add(part)
    return made


@pytest.mark.parametrize("method", SEARCHES)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_one_outlier_does_not_decide(method, grid):
    """A value a hundred deviations away widens the extremes tenfold and more; every other method cuts it off."""
    values = np.append(np.random.default_rng(0).standard_normal(100_000), 100.0)
    least, greatest = SEARCHES[method](histogram_of(values), grid)
    assert -6 < least <= 0 <= greatest < 100
    if grid.bits == 4 or method != "mse":
        assert greatest < 15


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("shift", [0.0, 1.5], ids=["half is 0", "nearly all is 0"])
def test_many_zeros_do_not_narrow_the_range_of_entropy(grid, shift):
    """Of what a ReLU lets through, hardly anything is clipped; steps as small as a bin would clip up to a third."""
    values = np.random.default_rng(4).standard_normal(200_000) - shift
    passed = values[values > 0]
    greatest = ranges.entropy(histogram_of(np.maximum(values, 0)), grid)[1]
    assert (passed > greatest).mean() < 0.005


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_least_squared_error_is_less_than_that_of_the_extremes(grid):
    values = np.random.default_rng(1).standard_normal(50_000) ** 3
    errors = [
        ((ranges.on_grid(values, *found, grid) - values) ** 2).mean()
        for found in (ranges.squared_error(histogram_of(values), grid), (values.min(), values.max()))
    ]
    assert errors[0] < errors[1]


def test_percentile_holds_that_share():
    values = np.random.default_rng(2).standard_normal(1_000_000)
    least, greatest = ranges.percentile(histogram_of(values), Grid(8))
    inside = ((values >= least) & (values <= greatest)).mean()
    assert 0.9999 <= inside <= 0.99996


def test_values_of_one_sign_keep_their_end_at_zero():
    values = np.abs(np.random.default_rng(3).standard_normal(10_000))
    for search in SEARCHES.values():
        least, greatest = search(histogram_of(values), Grid(8))
        assert least == 0
        assert greatest > 1


@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=50),
    bits=st.integers(2, 8),
    symmetric=st.booleans(),
    method=st.sampled_from(sorted(SEARCHES)),
)
def test_ranges_lie_within_the_extremes_and_hold_zero(values, bits, symmetric, method):
    array = np.array(values)
    least, greatest = SEARCHES[method](histogram_of(array), Grid(bits, symmetric))
    assert np.isfinite([least, greatest]).all()
    slack = 1e-3 * (np.ptp(array) + np.abs(array).max()) + 1e-3
    assert min(array.min(), 0) - slack <= least <= 0 <= greatest <= max(array.max(), 0) + slack
