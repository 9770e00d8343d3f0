"""SegFormer's keys for other data: masks with 0 for nothing, images at their own size, parts of a step; ADE20K."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from src.engine import config
from src.engine.data import stream
from src.engine.errors import UsageError, ZooError
from src.segformer.config import Config
from src.segformer.data import dataset
from src.segformer.data.class_list import read_class_list
from tests.conftest import ROOT
from tests.segmentation_data import DataConfig, write_generic

ADE20K = ROOT / "configs/segformer/segformer.b0.512x512.ade20k.yaml"


@given(arrays.arrays(np.uint8, (5, 7)), st.sampled_from([255, 200]))
def test_reduced_masks(mask, ignore):
    found = dataset.reduced(mask, ignore)
    nothing = (mask == 0) | (mask == ignore)
    assert (found[nothing] == ignore).all()
    assert (found[~nothing] == mask[~nothing] - 1).all()


def test_a_mask_with_0_for_nothing_is_read(tmp_path):
    pairs = dataset.find_pairs(str(write_generic(tmp_path, {"train": 2})), "train")
    _, plain = pairs.read(0)
    _, mask = replace(pairs, reduces_zero=True).read(0)
    assert (mask == dataset.reduced(plain, pairs.classes.ignore)).all()
    assert {255} < set(np.unique(mask)) <= {0, 1, 255}


def test_images_at_their_own_size(tmp_path):
    pairs = dataset.find_pairs(str(write_generic(tmp_path, {"train": 2})), "train")
    image, mask = pairs.read(0)
    cfg = DataConfig(native_size=True, crop_size=(16, 24))
    assert dataset.eval_transform(image, cfg).shape[1:] == mask.shape
    assert dataset.eval_transform(image, cfg, 0.5).shape[1:] == tuple(side // 2 for side in mask.shape)
    planes, crop = dataset.train_transform(image, mask, stream.generator(1, 0, 0), cfg, 255)
    assert planes.shape == (3, 16, 24)
    windows = np.lib.stride_tricks.sliding_window_view(mask, (16, 24)).reshape(-1, 16, 24)
    assert any((one == crop).all() or (one[:, ::-1] == crop).all() for one in windows)
    dataset.require_filled_crops(pairs, cfg)
    assert not dataset.padding_line(pairs, cfg)
    large = replace(cfg, crop_size=(mask.shape[0] + 1, 24))
    with pytest.raises(UsageError, match="an image has .* pixels; give a smaller --crop_size or leave native_size out"):
        dataset.require_filled_crops(pairs, large)


def test_the_parts_of_a_step_are_one_larger_batch(tmp_path):
    pairs = dataset.find_pairs(str(write_generic(tmp_path, {"train": 9})), "train")

    def seen(**values):
        cfg = DataConfig(**values)
        return list(dataset.Loader(pairs, cfg, stream.BadFiles("error", print)).train_batches(0))

    parts, whole = seen(batch_size=2, accumulate=2), seen(batch_size=4)
    assert len(parts) == len(whole) == 2
    assert all((one == other).all() for left, right in zip(parts, whole) for one, other in zip(left, right))


def test_ade20k_has_150_classes():
    cfg = config.build(Config, config.read_yaml(ADE20K))
    classes = read_class_list(ROOT / cfg.class_list)
    assert len(classes) == cfg.class_num == 150
    assert (classes.names[0], classes.names[149], classes.ignore) == ("wall", "flag", 255)
    assert cfg.reduce_zero_label and cfg.recipe == "paper"


def test_a_mask_that_is_not_reduced_is_refused_with_its_values(tmp_path):
    pairs = dataset.find_pairs(str(write_generic(tmp_path, {"train": 1})), "train")
    table = replace(pairs.classes, names=pairs.classes.names[:2])
    with pytest.raises(ZooError, match="holds the values 2"):
        replace(pairs, classes=table).read(0)
    replace(pairs, classes=table, reduces_zero=True).read(0)
