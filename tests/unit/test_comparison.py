"""Several predictors on one stream of samples: what is counted, and that all take turns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from src.engine import comparison
from src.engine.comparison import Contender
from src.engine.errors import ZooError

CLASSES = st.integers(0, 2)


class Right:
    """Counts right classes."""

    def __init__(self):
        self.found = []

    def update(self, predicted, truth):
        self.found.append((predicted == truth).mean())

    @property
    def score(self):
        return float(np.mean(self.found))


@given(st.data(), st.integers(1, 4), st.integers(1, 3))
def test_every_contender_is_compared_with_the_first(data, count, samples):
    shape = data.draw(arrays.array_shapes(max_dims=3, max_side=5))
    drawn = arrays.arrays(np.int64, shape, elements=CLASSES)
    predicted = [[data.draw(drawn) for _ in range(samples)] for _ in range(count)]
    truth = [data.draw(drawn) for _ in range(samples)]
    counts = [data.draw(arrays.arrays(bool, shape)) for _ in range(samples)]
    contenders = [Contender(lambda i, own=own: own[i], None, Right(), (None,) * 3) for own in predicted]
    results = comparison.compare(contenders, zip(range(samples), truth, counts))
    for own, result in zip(predicted, results):
        same = sum(((a == b) & counted).sum() for a, b, counted in zip(own, predicted[0], counts))
        assert (result.same, result.counted) == (same, sum(counted.sum() for counted in counts))
        assert result.score == np.mean([(a == b).mean() for a, b in zip(own, truth)])
    assert results[0].same == results[0].counted


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (("cat", "dog"), ""),
        ((None, None), ""),
        (("dog", "cat"), "class 0 is 'dog' in b.onnx and 'cat' in a.ckpt; compare files of the same classes"),
        ((None,), "b.onnx has 1 classes and a.ckpt has 2; compare files of the same classes"),
    ],
)
def test_files_of_other_classes(names, sentence):
    files, both = [Path("a.ckpt"), Path("b.onnx")], [Contender(None, None, None, ("cat", "dog")),
                                                     Contender(None, None, None, names)]  # fmt: skip
    if not sentence:
        comparison.require_same_classes(files, both)
        return
    with pytest.raises(ZooError) as refused:
        comparison.require_same_classes(files, both)
    assert str(refused.value) == sentence


def test_all_take_turns():
    calls = []
    networks = [lambda image, name=name: calls.append(name) for name in "ab"]
    times = comparison.latencies(networks, np.zeros(1), trials=20)
    warm = comparison.WARMING
    assert calls == ["a"] * warm + ["b"] * warm + ["a", "a", "b", "b"] * comparison.PARTS
    assert all(0 <= lowest <= middle <= highest for middle, lowest, highest in times)
