"""SegFormer's learning rate, names and variants, and how logits become classes of an image, without MindSpore."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from src.segformer import names
from src.segformer.lr_generator import get_lr
from src.segformer.predicting import prediction
from src.segformer.variants import VARIANTS, decoder_width, drop_path_rates


class TestLearningRate:
    def test_constant(self):
        rates = get_lr("constant", 0.0001, 0, 0.0, 7)
        assert rates.dtype == np.float32
        assert rates.tolist() == [np.float32(0.0001)] * 7

    def test_warm_up_from_nothing(self):
        np.testing.assert_allclose(get_lr("constant", 0.4, 4, 0.0, 6), [0, 0.1, 0.2, 0.3, 0.4, 0.4], rtol=1e-6)

    def test_the_papers_schedule(self):
        rates = get_lr("linear", 6e-5, 1500, 1e-6, 160_000)
        assert len(rates) == 160_000
        assert rates[0] == pytest.approx(6e-11)
        assert rates[750] == pytest.approx(6e-5 * (1 - 750 / 160_000) * 0.5, rel=1e-4)
        assert rates[1500] == pytest.approx(6e-5 * (1 - 1500 / 160_000))
        assert rates[-1] == pytest.approx(6e-5 / 160_000)
        assert rates.argmax() == 1500

    def test_a_warm_up_longer_than_the_training_just_ends_early(self):
        assert len(get_lr("linear", 0.1, 100, 0.0, 3)) == 3


class TestVariants:
    def test_decoder_width(self):
        assert [decoder_width(f"mit_b{n}", 0) for n in range(6)] == [256, 512, 512, 512, 512, 512]
        assert decoder_width("mit_b3", 768) == 768

    def test_drop_rates_rise_over_all_blocks(self):
        rates = drop_path_rates("mit_b5")
        assert len(rates) == 52
        np.testing.assert_allclose(rates, np.linspace(0, 0.1, 52))


class TestNames:
    @pytest.mark.parametrize(
        ("name", "dialect", "ours"),
        [
            ("patch_embed1.proj.weight", names.AUTHORS, "backbone.stages.0.patch_embed.proj.weight"),
            ("backbone.block4.2.norm1.weight", names.AUTHORS, "backbone.stages.3.blocks.2.norm1.gamma"),
            ("block2.0.mlp.dwconv.dwconv.bias", names.AUTHORS, "backbone.stages.1.blocks.0.mlp.dwconv.bias"),
            ("norm3.bias", names.AUTHORS, "backbone.stages.2.norm.beta"),
            ("decode_head.linear_c4.proj.weight", names.AUTHORS, "decode_head.linear_c.3.weight"),
            ("decode_head.linear_fuse.bn.running_var", names.AUTHORS, "decode_head.bn.moving_variance"),
            ("head.weight", names.AUTHORS, None),
            ("decode_head.conv_seg.bias", names.AUTHORS, None),
            ("segformer.encoder.block.0.1.attention.self.sr.bias", names.TRANSFORMERS_4,
             "backbone.stages.0.blocks.1.attn.sr.bias"),
            ("encoder.layer_norm.2.weight", names.TRANSFORMERS_4, "backbone.stages.2.norm.gamma"),
            ("decode_head.batch_norm.running_mean", names.TRANSFORMERS_4, "decode_head.bn.moving_mean"),
            ("segformer.stages.3.blocks.0.attention.o_proj.bias", names.TRANSFORMERS_5,
             "backbone.stages.3.blocks.0.attn.proj.bias"),
            ("classifier.weight", names.TRANSFORMERS_5, None),
        ],
    )  # fmt: skip
    def test_our_name(self, name, dialect, ours):
        assert names.our_name(name, dialect, names.owners(dialect)) == ours

    def test_keys_and_values_that_are_apart_are_joined_and_matrices_get_our_shape(self):
        prefix = "segformer.encoder.block.0.0."
        state = {
            f"{prefix}attention.self.value.weight": np.full((2, 2), 2.0),
            f"{prefix}attention.self.key.weight": np.full((2, 2), 1.0),
            f"{prefix}mlp.dense1.weight": np.zeros((8, 2)),
            "decode_head.linear_fuse.weight": np.zeros((3, 12, 1, 1)),
            "decode_head.batch_norm.num_batches_tracked": np.array(3),
            "classifier.bias": np.zeros(4),
        }
        arrays, unused = names.translate(state)
        assert unused == ["classifier.bias"]
        assert {name: array.shape for name, array in arrays.items()} == {
            "backbone.stages.0.blocks.0.attn.kv.weight": (4, 2),
            "backbone.stages.0.blocks.0.mlp.fc1.weight": (8, 2, 1, 1),
            "decode_head.linear_fuse.weight": (3, 12),
        }
        assert arrays["backbone.stages.0.blocks.0.attn.kv.weight"][:, 0].tolist() == [1, 1, 2, 2]

    @pytest.mark.parametrize(
        ("name", "ours"),
        [
            ("backbone.patch_embed2.conv.weight", "backbone.stages.1.patch_embed.proj.weight"),
            ("backbone.patch_embed2.norm.gamma", "backbone.stages.1.patch_embed.norm.gamma"),
            ("backbone.block1.1.attn.conv.bias", "backbone.stages.0.blocks.1.attn.proj.bias"),
            ("decode_head.linear_fuse.bn.moving_mean", "decode_head.bn.moving_mean"),
        ],
    )
    def test_names_of_the_original_mindspore_network(self, name, ours):
        arrays, unused = names.translate({names.from_model_zoo(name): np.zeros(3)})
        assert ([*arrays], unused) == ([ours], [])

    @pytest.mark.parametrize("backbone", VARIANTS)
    def test_a_variant_is_known_by_its_channels_and_blocks(self, backbone):
        channels = VARIANTS[backbone].channels
        arrays = {name: np.zeros(1) for name in names.encoder_names(backbone)}
        for stage, width in enumerate(channels):
            arrays[f"backbone.stages.{stage}.patch_embed.proj.weight"] = np.zeros((width, 1))
        assert names.variant_of(arrays) == backbone
        assert names.variant_of({name: a for name, a in arrays.items() if ".3.blocks." not in name}) is None
        assert names.variant_of({}) is None

    def test_what_a_segformer_is_recognised_by(self):
        assert names.is_segformer({"module": np.zeros(1), "patch_embed1.proj.weight": np.zeros(1)})
        assert not names.is_segformer({"features.0.0.weight": np.zeros(1)})


@dataclass(frozen=True)
class Settings:
    eval_mode: str = "whole"
    window: tuple = ((32, 32), (24, 24))
    multi_scale: tuple = (1.0,)
    flip: bool = False
    size_divisor: int = 32
    base_size: tuple = (40, 72)
    native_size: bool = False
    img_norm_mean: tuple = (0.0, 0.0, 0.0)
    img_norm_std: tuple = (1.0, 1.0, 1.0)


def colours_as_logits(image: np.ndarray) -> np.ndarray:
    """A stand-in for the network whose answer can be seen: the colours of every fourth pixel are the logits."""
    assert image.shape[2] % 4 == image.shape[3] % 4 == 0
    return image[:, :, ::4, ::4]


def picture(height: int = 40, width: int = 72) -> np.ndarray:
    """Blue left, green right, red at the lower border."""
    found = np.zeros((height, width, 3), np.uint8)
    found[:, : width // 2, 2] = found[:, width // 2 :, 1] = 200
    found[-8:] = (250, 0, 0)
    return found


class TestPrediction:
    def classes(self, cfg: Settings, image: np.ndarray | None = None) -> np.ndarray:
        image = picture() if image is None else image
        return prediction.class_map(
            colours_as_logits, image, prediction.eval_transform(image, cfg, cfg.multi_scale[0]), cfg
        )

    @pytest.mark.parametrize(
        "cfg",
        [
            Settings(),
            Settings(eval_mode="slide"),
            Settings(flip=True),
            Settings(multi_scale=(1.0, 2.0), flip=True),
            Settings(multi_scale=(0.5, 2.0), eval_mode="slide"),
            Settings(base_size=(80, 144), size_divisor=1),
        ],
        ids=str,
    )
    def test_every_mode_finds_the_regions_at_the_original_size(self, cfg):
        found = self.classes(cfg)
        assert found.shape == (40, 72)
        assert found.dtype == np.uint8
        assert (found[2:26, 4:30] == 2).all()
        assert (found[2:26, 42:68] == 1).all()
        assert (found[-2:] == 0).all()

    def test_an_image_of_another_shape_is_fitted_and_comes_back_at_its_size(self):
        found = self.classes(Settings(), picture(101, 53))
        assert found.shape == (101, 53)
        assert (found[5:70, 3:20] == 2).all()

    @pytest.mark.parametrize(
        ("length", "window", "stride", "starts"),
        [
            (72, 32, 24, [0, 24, 40]),
            (32, 32, 24, [0]),
            (20, 32, 24, [0]),
            (33, 32, 24, [0, 1]),
            (80, 32, 24, [0, 24, 48]),
        ],
    )
    def test_windows_cover_everything_and_end_at_the_border(self, length, window, stride, starts):
        assert prediction.window_starts(length, window, stride) == starts

    def test_overlapping_windows_are_averaged(self):
        calls = []

        def predict(image: np.ndarray) -> np.ndarray:
            calls.append(image)
            return np.full((1, 2, 8, 8), float(len(calls)), np.float32)

        planes = list(prediction.sliding_windows(predict, np.zeros((3, 32, 40), np.float32), (32, 32), (24, 24)))
        assert [call.shape for call in calls] == [(1, 3, 32, 32)] * 2
        assert planes[0][0].tolist() == [1.0] * 8 + [1.5] * 24 + [2.0] * 8

    @pytest.mark.parametrize("cfg", [Settings(), Settings(flip=True), Settings(eval_mode="slide")], ids=str)
    def test_together_is_as_one_by_one(self, cfg):
        for seen in ([picture(), picture()[:, ::-1]], [picture(), picture(101, 53)]):
            views = [prediction.eval_transform(image, cfg, 1.0) for image in seen]
            together = prediction.class_maps(colours_as_logits, seen, views, cfg)
            assert len(together) == len(seen)
            assert all((found == self.classes(cfg, image)).all() for found, image in zip(together, seen))

    def test_the_first_of_equal_classes_wins(self):
        planes = [np.zeros((2, 2), np.float32), np.zeros((2, 2), np.float32), np.array([[0, 1], [0, 0]], np.float32)]
        assert prediction.best_class(iter(planes)).tolist() == [[0, 2], [0, 0]]
        assert not planes[0].any()
