"""Parameter names: every torchvision entry has its place, and the original MindSpore names are translated."""

from __future__ import annotations

import pytest

from src.mobilenetv2.names import from_model_zoo, from_torchvision

# (expansion, repeats) of the paper's table 2; the names do not depend on channels and strides.
BLOCKS = ((1, 1), (6, 2), (6, 3), (6, 4), (6, 3), (6, 3), (6, 1))
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
OUR_NORM = ("gamma", "beta", "moving_mean", "moving_variance")


def torchvision_layers() -> list[tuple[str, bool]]:
    """Owner of every parameter of torchvision's mobilenet_v2 but the classifier, and whether it is a batch norm."""
    layers = [("features.0.0", False), ("features.0.1", True)]
    index = 0
    for expansion, repeats in BLOCKS:
        groups = 1 if expansion == 1 else 2
        for _ in range(repeats):
            index += 1
            conv = f"features.{index}.conv"
            for group in range(groups):
                layers += [(f"{conv}.{group}.0", False), (f"{conv}.{group}.1", True)]
            layers += [(f"{conv}.{groups}", False), (f"{conv}.{groups + 1}", True)]
    return [*layers, ("features.18.0", False), ("features.18.1", True)]


def torchvision_names() -> list[str]:
    names = []
    for owner, is_norm in torchvision_layers():
        names += [f"{owner}.{leaf}" for leaf in NORM] if is_norm else [f"{owner}.weight"]
    return [*names, "classifier.1.weight", "classifier.1.bias"]


def test_every_torchvision_name_is_translated_once():
    names = torchvision_names()
    assert len(names) == len(set(names)) == 314
    translated = [from_torchvision(name) for name in names]
    kept = [name for name in translated if name is not None]
    assert len(kept) == len(set(kept)) == 262  # 52 filters, 52 x 4 of batch normalisation, 2 of the classifier
    counters = [name for name, ours in zip(names, translated) if ours is None]
    assert len(counters) == 52 and all(name.endswith(".num_batches_tracked") for name in counters)


@pytest.mark.parametrize(("owner", "is_norm"), torchvision_layers())
def test_names_of_a_layer(owner, is_norm):
    if is_norm:
        assert [from_torchvision(f"{owner}.{leaf}") for leaf in NORM] == [
            *(f"backbone.{owner}.{leaf}" for leaf in OUR_NORM),
            None,
        ]
    else:
        assert from_torchvision(f"{owner}.weight") == f"backbone.{owner}.weight"


def test_classifier():
    assert from_torchvision("classifier.1.weight") == "head.dense.weight"
    assert from_torchvision("classifier.1.bias") == "head.dense.bias"


@pytest.mark.parametrize("name", ["fc.weight", "classifier.0.weight", "aux.features.0.0.weight", "features", ""])
def test_other_names_have_no_counterpart(name):
    assert from_torchvision(name) is None


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("features.1.conv.0.features.0.weight", "backbone.features.1.conv.0.0.weight"),
        ("features.1.conv.0.features.1.gamma", "backbone.features.1.conv.0.1.gamma"),
        ("dense.weight", "head.dense.weight"),
        ("head.dense.bias", "head.dense.bias"),
        ("features.0.features.1.moving_variance", "backbone.features.0.1.moving_variance"),
        ("features.1.conv.1.weight", "backbone.features.1.conv.1.weight"),
        ("features.2.conv.3.beta", "backbone.features.2.conv.3.beta"),
        ("backbone.features.18.features.0.weight", "backbone.features.18.0.weight"),
        ("global_step", "global_step"),
    ],
)
def test_model_zoo_names(theirs, ours):
    assert from_model_zoo(theirs) == ours


def test_translating_our_own_names_changes_nothing():
    ours = [name for name in map(from_torchvision, torchvision_names()) if name]
    assert [from_model_zoo(name) for name in ours] == ours
