"""Classes of different sizes: weights in the loss, and epochs that hold as many images of each."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.classification import imbalance
from src.engine.errors import ZooError

CLASSES = {"cat": 0, "dog": 1, "owl": 2}
LABELS = np.array([0, 0, 0, 0, 1, 2, 2, 0])


def many(counts: list[int]) -> np.ndarray:
    return np.repeat(np.arange(len(counts)), counts)


@given(st.lists(st.integers(1, 40), min_size=2, max_size=6))
def test_balanced_weights_give_each_class_one_share(counts):
    labels = many(counts)
    weights = imbalance.class_weights("balanced", labels, {str(number): number for number in range(len(counts))})
    np.testing.assert_allclose(np.bincount(labels, weights[labels]), len(labels) / len(counts), rtol=1e-5)


def test_weights_of_a_file_keep_the_size_of_the_loss(tmp_path):
    path = tmp_path / "weights.csv"
    path.write_text("owl,4\n\ncat,1\ndog,2\n")
    weights = imbalance.class_weights(str(path), LABELS, CLASSES)
    np.testing.assert_allclose(weights / weights[0], [1, 2, 4], rtol=1e-6)
    assert weights[LABELS].mean() == pytest.approx(1)
    target = np.eye(3, dtype=np.float32)[LABELS]
    assert imbalance.weighted(target, LABELS, None) is target
    np.testing.assert_array_equal(imbalance.weighted(target, LABELS, weights).sum(1), weights[LABELS])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("cat,1\ndog,2\n", "has no line for class 'owl'"),
        ("cat,1\ncat,1\ndog,1\nowl,1\n", "has the line 'cat,1'; it has to be CLASS,WEIGHT, once for each class"),
        ("cat,1\ndog,1\nowl\n", "has the line 'owl'"),
        ("cow,1\n", "has the line 'cow,1'"),
        ("cat,0\n", "gives class 'cat' the weight '0'; it has to be a number above 0"),
        ("cat,nan\n", "the weight 'nan'"),
        ("cat,much\n", "the weight 'much'"),
    ],
)
def test_a_wrong_file_is_refused(text, says, tmp_path):
    path = tmp_path / "weights.csv"
    path.write_text(text)
    with pytest.raises(ZooError, match=says):
        imbalance.class_weights(str(path), LABELS, CLASSES)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ZooError, match="cannot read class_weights .*; give 'balanced' or a CSV file"):
        imbalance.class_weights(str(tmp_path / "none.csv"), LABELS, CLASSES)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(0, 3))
def test_a_balanced_epoch_has_as_many_images_of_each_class(counts, epoch):
    labels = many(counts)
    order = imbalance.balanced_order(labels, 7, epoch)
    assert len(order) == len(labels) == len(np.unique(order))
    drawn = np.bincount(labels[order % len(labels)], minlength=len(counts))
    assert drawn.max() - drawn.min() <= 1
    for index in np.unique(order % len(labels)):  # the n-th time an image is drawn has the number n
        times = np.sort(order[order % len(labels) == index] // len(labels))
        assert times.tolist() == list(range(len(times)))
    assert (order == imbalance.balanced_order(labels, 7, epoch)).all()


def test_a_class_without_readable_images_leaves_the_others_their_weights(tmp_path):
    labels = LABELS[LABELS != 1]
    weights = imbalance.class_weights("balanced", labels, CLASSES)
    assert weights[1] == 0
    np.testing.assert_allclose(
        np.bincount(labels, weights[labels], 3), [len(labels) / 2, 0, len(labels) / 2], rtol=1e-5
    )


def test_a_file_saved_by_a_spreadsheet_is_read(tmp_path):
    path = tmp_path / "weights.csv"
    path.write_text("cat,1\ndog,2\nowl,3\n", encoding="utf-8-sig")
    assert imbalance.read_weights(path, CLASSES) == {"cat": 1.0, "dog": 2.0, "owl": 3.0}
