"""The whole recipes of Ascend on CPU, with nothing but the device exchanged: mixed precision, loss scale, boost, ranks.

MindSpore's CPU operators know float16, so losses can be compared with those of float32. The other of two ranks is a
twin: it has the same images, so sums are twice what this rank has.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.needs_mindspore
ms = pytest.importorskip("mindspore")

from mindspore import nn  # noqa: E402
from mindspore.nn.layer import normalization  # noqa: E402

from src import zoo  # noqa: E402
from src.engine import device, loop  # noqa: E402
from src.engine.errors import ZooError  # noqa: E402
from src.engine.io import checkpoint  # noqa: E402
from src.engine.ranks import Rank  # noqa: E402
from src.engine.steps import collective  # noqa: E402
from src.mobilenetv2 import network as mobilenetv2  # noqa: E402
from src.mobilenetv2 import recipe as mobilenetv2_recipe  # noqa: E402
from src.mobilenetv2_quant import recipe as quant_recipe  # noqa: E402
from src.segformer import recipe as segformer_recipe  # noqa: E402
from src.segformer.variants import VARIANTS, Variant  # noqa: E402
from tests.conftest import ROOT, write_settings  # noqa: E402
from tests.networks import calm  # noqa: E402
from tests.segmentation_data import write_generic  # noqa: E402

TINY = {
    "__BASE__": str(ROOT / "default_config.yaml"),
    "image_height": 32,
    "image_width": 32,
    "width_mult": 0.25,
    "batch_size": 4,
    "epoch_size": 2,
    "warmup_epochs": 0,
    "lr_init": 0.002,
    "lr_max": 0.002,
    "run_eval": True,
    "save_checkpoint_path": "run",
}
SEGFORMER = {
    "__BASE__": str(ROOT / "configs" / "segformer" / "segformer.b0.512x1024.city.yaml"),
    "backbone": "mit_b0",
    "base_size": [32, 64],
    "crop_size": [32, 64],
    "class_num": 3,
    "batch_size": 4,
    "epoch_size": 2,
    "warmup_steps": 0,
    "eval_start_epoch": 0,
    "eval_interval": 1,
    "load_ckpt": False,
    "checkpoint_path": "run",
}


class Twin(Rank):
    """The first of two ranks that have the same."""

    def total(self, values: np.ndarray) -> np.ndarray:
        return values * 2

    def gather(self, numbers: np.ndarray) -> np.ndarray:
        return np.tile(numbers, (2, 1))

    def share_statistics(self, net: nn.Cell) -> None:
        pass


def twice(vector: ms.Tensor) -> ms.Tensor:
    """The sum of the gradients of this rank and its twin."""
    return vector * 2.0


@pytest.fixture
def card(monkeypatch, tmp_path) -> Iterator[list[np.ndarray]]:
    """A CPU that takes itself for a card; the list receives the logits of every evaluation."""
    seen: list[np.ndarray] = []

    def setup(platform: str, device_id: int = 0, distribute: bool = False, dtype: str = "float32") -> Rank:
        assert platform == "Ascend"
        return Twin(0, 2) if distribute else Rank()

    def watched(net: nn.Cell):
        predict = predictor(net)

        def noted(inputs: np.ndarray) -> np.ndarray:
            seen.append(predict(inputs))
            return seen[-1]

        return noted

    predictor = loop.predictor
    monkeypatch.setattr(device, "setup", setup)
    monkeypatch.setattr(loop, "predictor", watched)
    monkeypatch.setattr(collective.ops, "AllReduce", lambda: twice)
    for name, value in (("get_rank", 0), ("get_group_size", 1)):
        monkeypatch.setattr(normalization, name, lambda value=value: value)
    monkeypatch.chdir(tmp_path)
    return seen


def rows(folder: str, kind: str) -> list[dict]:
    lines = (Path(folder) / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


def losses(folder: str) -> list[float]:
    return [row["loss"] for row in rows(folder, "train")]


class TestMobileNetV2:
    @pytest.fixture(autouse=True)
    def _calm(self, monkeypatch):
        """Weights on which rounding stays small."""
        build = mobilenetv2.build
        monkeypatch.setattr(mobilenetv2, "build", lambda *arguments: calm(build(*arguments)))

    def configure(self, images: Path, command: str, folder: str, *flags: object):
        path = write_settings(Path("tiny.yaml"), TINY)
        data = images / ("train" if command == "train" else "val")
        flags = ("--config_path", path, "--dataset_path", data, "--save_checkpoint_path", folder, *flags)
        return zoo.configure(command, list(map(str, flags)))

    def train(self, images: Path, folder: str, *flags: object) -> list[float]:
        assert mobilenetv2_recipe.train(self.configure(images, "train", folder, *flags)) == 0
        return losses(folder)

    def test_it_trains_as_float32_does_and_eval_repeats_the_best(self, card, images, capsys):
        cfg = self.configure(images, "train", "half")
        assert (cfg.platform, cfg.dtype, cfg.loss_scale) == ("Ascend", "float16", 1024)
        half = self.train(images, "half", "--run_distribute", "True")
        best = max(row["top1"] for row in rows("half", "eval"))
        trained = card[:]
        assert {logits.dtype for logits in trained} == {np.dtype(np.float32)}
        stored = checkpoint.read("half/mobilenetv2-2_3.ckpt")
        assert {array.dtype for array in stored.arrays.values()} <= {np.dtype(np.float32), np.dtype(np.int32)}
        assert stored.meta["boost_mode"] == "O0"
        card.clear()
        capsys.readouterr()
        flags = ("--pretrain_ckpt", "half/mobilenetv2-best.ckpt", "--run_distribute", "True")
        assert mobilenetv2_recipe.evaluate(self.configure(images, "eval", "half", *flags)) == 0
        assert f"'acc': {best!r}" in capsys.readouterr().out
        per_epoch = len(trained) // 2
        epochs = [np.concatenate(trained[:per_epoch]), np.concatenate(trained[per_epoch:])]
        assert any(np.array_equal(np.concatenate(card), logits) for logits in epochs)
        full = self.train(images, "full", "--run_distribute", "True", "--amp_level", "O0")
        assert len(half) == len(full) == 6
        assert half[0] == pytest.approx(full[0], rel=1e-3)
        np.testing.assert_allclose(half, full, rtol=0.03)  # 0.0200 on MindSpore 2.10, which rounds otherwise
        assert half != full

    @pytest.mark.slow
    def test_boost_is_the_same_at_every_scale_and_when_it_is_resumed(self, card, images):
        boosted = ("--boost_mode", "O1", "--amp_level", "O2")
        whole = self.train(images, "whole", *boosted)
        plain = self.train(images, "plain", *boosted, "--loss_scale", "1")
        np.testing.assert_allclose(whole, plain, rtol=0.06)  # small gradients vanish without a scale
        first = Path("whole/mobilenetv2-1_6.ckpt")
        cfg = self.configure(images, "train", "again", *boosted, "--resume", first)
        assert mobilenetv2_recipe.train(cfg) == 0
        last, again = (checkpoint.read(f"{folder}/mobilenetv2-2_6.ckpt").arrays for folder in ("whole", "again"))
        assert last.keys() == again.keys()
        assert all(np.array_equal(array, again[name]) for name, array in last.items())
        with pytest.raises(ZooError, match="was made with another boost_mode .O1.; give the same"):
            mobilenetv2_recipe.train(self.configure(images, "train", "unboosted", "--resume", first))

    @pytest.mark.slow
    def test_the_head_alone_and_its_features(self, card, images):
        half = self.train(images, "half", "--epoch_size", "1")
        assert len(half) == 6
        card.clear()
        flags = ("--pretrain_ckpt", "half/mobilenetv2-best.ckpt", "--freeze_layer", "backbone")
        self.train(images, "head", *flags)
        trained = np.concatenate([logits for logits in card if logits.shape[1] == 3])
        card.clear()
        flags = ("--pretrain_ckpt", "head/mobilenetv2-best.ckpt")
        assert mobilenetv2_recipe.evaluate(self.configure(images, "eval", "head", *flags)) == 0
        found = np.concatenate(card)
        assert any(np.array_equal(found[:9], part[:9]) for part in np.split(trained, len(trained) // 12))


@pytest.mark.slow
def test_quant_trains_in_float32(card, images):
    base = str(ROOT / "configs" / "mobilenetv2_quant" / "ascend.yaml")
    settings = {**{key: TINY[key] for key in TINY if not key.startswith("lr_")}, "__BASE__": base, "epoch_size": 1}
    path = write_settings(Path("quant.yaml"), settings)
    flags = ["--config_path", str(path), "--dataset_path", str(images / "train"), "--run_distribute", "True"]
    cfg = zoo.configure("train", flags)
    assert (cfg.platform, cfg.dtype) == ("Ascend", "float32")
    assert quant_recipe.train(cfg) == 0
    best = max(row["top1"] for row in rows("run", "eval"))
    assert np.isfinite(losses("run")).all()
    trained = np.concatenate(card)
    card.clear()
    flags[3] = str(images / "val")
    cfg = zoo.configure("eval", [*flags, "--pretrain_ckpt", "run/mobilenetv2_quant-best.ckpt"])
    assert quant_recipe.evaluate(cfg) == 0
    assert np.array_equal(np.concatenate(card), trained)
    assert 0 <= best <= 1


class TestSegFormer:
    @pytest.fixture(autouse=True)
    def _small(self, monkeypatch):
        monkeypatch.setitem(VARIANTS, "mit_b0", Variant((8, 16, 20, 32), (1, 1, 1, 1), 32))

    def configure(self, data: Path, command: str, folder: str, *flags: object):
        path = write_settings(Path("tiny.yaml"), SEGFORMER)
        flags = ("--config_path", path, "--data_path", data, "--checkpoint_path", folder, *flags)
        return zoo.configure(command, [*map(str, flags), "--platform", "Ascend", "--run_distribute", "True"])

    def train(self, data: Path, folder: str, *flags: object) -> list[float]:
        assert segformer_recipe.train(self.configure(data, "train", folder, *flags)) == 0
        return losses(folder)

    def test_it_trains_as_float32_does_and_eval_repeats_the_best(self, card, tmp_path, monkeypatch):
        data = write_generic(tmp_path / "data", {"train": 8, "val": 3})
        built = []
        build = segformer_recipe.network.build
        monkeypatch.setattr(segformer_recipe.network, "build", lambda *a: built.append(build(*a)) or built[-1])
        assert self.configure(data, "train", "half").dtype == "float16"
        half = self.train(data, "half")
        assert type(built[0].decode_head.bn) is nn.SyncBatchNorm and built[0].decode_head.bn.fp32
        evaluations = rows("half", "eval")
        assert len(evaluations) == 2
        trained = card[:]
        assert {logits.dtype for logits in trained} == {np.dtype(np.float32)}
        card.clear()
        flags = ("--eval_ckpt_path", "half/segformer_mit_b0_best.ckpt", "--eval_json", "eval.json")
        assert segformer_recipe.evaluate(self.configure(data, "eval", "half", *flags)) == 0
        assert json.loads(Path("eval.json").read_text())["miou"] == max(row["miou"] for row in evaluations)
        count = len(trained) // 2
        assert any(all(map(np.array_equal, card, part)) for part in (trained[:count], trained[count:]))
        assert len(card) == count
        full = self.train(data, "full", "--amp_level", "O0")
        assert len(half) == len(full) == 4
        np.testing.assert_allclose(half, full, rtol=0.02)
        assert half != full
