"""Losses for imbalanced and hard data against numpy, and steps made of parts against whole ones."""

from __future__ import annotations

import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.needs_mindspore
ms = pytest.importorskip("mindspore")

from mindspore import Tensor, nn, ops  # noqa: E402
from mindspore.common import api  # noqa: E402

from src.classification import losses, training  # noqa: E402
from src.engine.data.source import LabelledImages  # noqa: E402
from src.engine.errors import UsageError  # noqa: E402
from src.engine.ranks import Rank  # noqa: E402
from src.engine.steps import step  # noqa: E402
from src.engine.steps.loss_scale import DynamicScale  # noqa: E402
from src.engine.steps.step import StepOptions, TrainStep  # noqa: E402
from src.mobilenetv2.loss import cross_entropy  # noqa: E402
from src.segformer import loss as pixels  # noqa: E402
from src.segformer import training as segmentation_training  # noqa: E402
from tests.conftest import ROOT, run_command  # noqa: E402
from tests.needs_mindspore.test_recipes import assert_same_state  # noqa: E402
from tests.segmentation_data import write_generic  # noqa: E402

IGNORE, SHARP = 255, 3.0
RNG = np.random.default_rng(0)
LOGITS = (SHARP * RNG.standard_normal((2, 4, 8, 8))).astype(np.float32)
LABEL = RNG.integers(0, 4, (2, 8, 8)).astype(np.int32)
LABEL[0, :3] = IGNORE
WEIGHTS = np.array([1.0, 2.0, 0.5, 1.0], np.float32)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


class TestFocal:
    LOGITS = (SHARP * RNG.standard_normal((6, 5))).astype(np.float32)
    TARGET = np.eye(5, dtype=np.float32)[[0, 1, 2, 3, 4, 0]] * 0.9 + 0.02

    @pytest.mark.parametrize("gamma", [0.5, 2.0])
    def test_it_is_the_papers(self, gamma):
        logarithm = log_softmax(self.LOGITS)
        wanted = -(self.TARGET * (1 - np.exp(logarithm)) ** gamma * logarithm).sum(1).mean()
        found = losses.focal(gamma)(Tensor(self.LOGITS), Tensor(self.TARGET))
        assert float(found.asnumpy()) == pytest.approx(wanted, rel=1e-5)

    def test_what_is_certain_has_a_finite_gradient(self):
        certain = np.array([[100.0, 0.0, 0.0]], np.float32)
        gradient = ms.grad(losses.focal(0.5))(Tensor(certain), Tensor(np.eye(3, dtype=np.float32)[:1]))
        assert np.isfinite(gradient.asnumpy()).all()


def expected(gamma: float, threshold: float, dice_weight: float) -> float:
    """The weighed loss of LOGITS in float64."""
    counted = LABEL != IGNORE
    label = LABEL * counted
    logarithm = log_softmax(LOGITS)
    entropy = -np.take_along_axis(logarithm, label[:, None], 1)[:, 0]
    p, weight = np.exp(-entropy), WEIGHTS[label] * counted
    if threshold:
        least = np.sort(p[counted])[: LABEL.size // 16 + 1].max()
        weight = weight * ((p < threshold) | (p <= least))
    told = entropy * (1 - p) ** gamma if gamma else entropy
    found = (told * weight).sum() / weight.sum()
    probability, truth = np.exp(logarithm) * counted[:, None], np.eye(4)[label].transpose(0, 3, 1, 2) * counted[:, None]
    common = 2 * (probability * truth).sum((0, 2, 3)) + 1
    return found + dice_weight * (1 - (common / ((probability + truth).sum((0, 2, 3)) + 1)).mean())


@pytest.mark.parametrize(
    ("gamma", "threshold", "dice_weight"),
    [(2.0, 0.0, 0.0), (0.0, 0.7, 0.0), (0.0, 1e-9, 0.0), (0.0, 0.0, 0.5), (1.5, 0.3, 1.0)],
)
def test_pixels_count_by_how_hard_they_are(gamma, threshold, dice_weight):
    loss = pixels.weighed(Tensor(WEIGHTS), IGNORE, gamma, threshold, dice_weight)
    value, gradient = ms.value_and_grad(loss)(Tensor(LOGITS), Tensor(LABEL))
    assert float(value.asnumpy()) == pytest.approx(expected(gamma, threshold, dice_weight), rel=1e-5)
    assert np.isfinite(gradient.asnumpy()).all()
    assert not gradient.asnumpy()[0, :, :3].any()  # what is ignored teaches nothing


def test_without_switches_it_is_the_cross_entropy():
    plain = pixels.cross_entropy(Tensor(LOGITS), Tensor(LABEL), Tensor(WEIGHTS), IGNORE)
    same = pixels.weighed(Tensor(WEIGHTS), IGNORE, 0.0, 0.0, 0.0)(Tensor(LOGITS), Tensor(LABEL))
    assert plain.asnumpy() == same.asnumpy()


class Network(nn.Cell):
    """Two layers, with batch normalisation between them if wanted."""

    def __init__(self, norm: bool):
        super().__init__()
        ms.set_seed(3)
        self.first, self.last = nn.Dense(6, 8), nn.Dense(8, 3)
        self.norm = nn.BatchNorm1d(8, momentum=0.9) if norm else nn.Identity()

    def construct(self, x: Tensor) -> Tensor:
        return self.last(ops.relu(self.norm(self.first(x))))


def step_of(options: StepOptions, norm: bool = False) -> TrainStep:
    net = Network(norm).set_train(True)

    def loss(x: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(net(x), target)

    return step.make_step(loss, step.momentum_optimizer(net, 0.9, 1e-4), options, net.get_parameters())


def batch(seed: int) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    x, target = rng.standard_normal((8, 6)), np.eye(3)[rng.integers(0, 3, 8)]
    return Tensor(x.astype(np.float32)), Tensor(target.astype(np.float32))


def values(one: TrainStep) -> dict[str, np.ndarray]:
    return {p.name: p.asnumpy().copy() for p in one.state}


class TestAccumulated:
    @pytest.mark.parametrize(
        "options",
        [StepOptions(clip_norm=0.5, ema_decay=0.9), StepOptions(loss_scale=1024.0)],
        ids=["plain", "scaled"],
    )
    def test_parts_give_the_step_of_the_whole_batch(self, options):
        from dataclasses import replace

        whole, parts = step_of(options), step_of(replace(options, accumulate=4))
        for seed in range(4):
            one, other = (float(run(0.1, *batch(seed)).asnumpy()) for run in (whole, parts))
            assert one == pytest.approx(other, rel=1e-5)
        ours, theirs = values(parts), values(whole)
        assert ours.keys() == theirs.keys()  # the sums are in no checkpoint
        for name, array in theirs.items():
            np.testing.assert_allclose(ours[name], array, rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize("scale", [1.0, 1024.0, DynamicScale(1024.0)], ids=["none", "fixed", "dynamic"])
    def test_nothing_is_compiled_after_the_first_step(self, scale):
        one = step_of(StepOptions(loss_scale=scale, accumulate=2))
        one(0.1, *batch(0))
        compiled = len(api.ms_compile_cache)
        assert compiled
        for seed in (1, 2):
            one(0.1, *batch(seed))
        assert len(api.ms_compile_cache) == compiled

    @pytest.mark.parametrize("scale", [1024.0, DynamicScale(1024.0)], ids=["fixed", "dynamic"])
    def test_a_part_that_overflows_changes_nothing_but_the_scale(self, scale):
        one = step_of(StepOptions(loss_scale=scale, ema_decay=0.9, accumulate=2), norm=True)
        one(0.1, *batch(0))
        before = values(one)
        x, target = batch(1)
        broken = x.asnumpy().copy()
        broken[1] = np.inf  # in the first of two parts
        one(0.1, Tensor(broken), target)
        assert bool(one.scaling()[0].asnumpy()) and one.skipped() == 1
        changed = {name for name, array in values(one).items() if array.tobytes() != before[name].tobytes()}
        assert changed <= {"loss_scale", "loss_scale_good_steps"}
        one(0.1, x, target)
        after = values(one)
        assert all(np.isfinite(array).all() for array in after.values())
        assert any(
            array.tobytes() != before[name].tobytes() for name, array in after.items() if name.endswith("weight")
        )


class TestAdvisedBatch:
    """The batch size that a refused one is told to become is taken, and the next larger one is not."""

    @given(samples=st.integers(1, 60), parts=st.integers(1, 6), ranks=st.integers(1, 4), wanted=st.integers(1, 80))
    @pytest.mark.parametrize("model", ["mobilenetv2", "segformer"])
    def test_it_is_taken(self, model, samples, parts, ranks, wanted):
        def check(batch_size: int) -> None:
            if model == "segformer":
                values = {"train_log_interval": 1, "save_checkpoint_epoch_interval": 1, "save_checkpoint_steps": 0}
                values |= {"recipe": "paper", "lr": 0.1, "warmup_steps": 0, "warmup_ratio": 0.0, "epoch_size": 1}
                cfg = SimpleNamespace(batch_size=batch_size, accumulate=parts, **values)
                segmentation_training.schedule(Counted(samples), cfg, Rank(count=ranks))
                return
            cfg = SimpleNamespace(
                images_per_step=batch_size * parts, accumulate=parts, dataset_path="x", class_weights=""
            )
            images = LabelledImages(Counted(samples), np.zeros(samples, np.int32), {"a": 0})
            training.require_trainable(images, cfg, Rank(count=ranks))

        whole = wanted * ranks if model == "segformer" else wanted
        try:
            check(whole)
        except UsageError as error:
            said = re.search(r"give (?:--batch_size (\d+) or less|at least (\d+) images)$", str(error))
            assert said, error
            if said[1]:
                check(int(said[1]))
                with pytest.raises(UsageError):
                    check(int(said[1]) + (ranks if model == "segformer" else 1))
            else:
                assert samples < int(said[2]) == parts * ranks


class Counted:
    """Samples that are only counted."""

    where = "here"

    def __init__(self, count: int):
        self.count = count

    def __len__(self) -> int:
        return self.count


SHARED = ("--focal_gamma", "1.5", "--accumulate", "2", "--ema_decay", "0.9", "--epoch_size", "2", "--run_eval", "False")
OF_CLASSES = ("--class_weights", "balanced", "--sampler", "balanced", "--batch_size", "6", "--clip_norm", "1")
OF_PIXELS = ("--ohem_threshold", "0.7", "--dice_weight", "0.5", "--batch_size", "2", "--class_num", "3")
EVERY_KEY = {  # of MobileNetV2, see test_recipes.py
    "mobilenetv2_quant": ("mobilenetv2_quant/digits_cpu.yaml", (*OF_CLASSES, "--width_mult", "0.25"), "-{}_2.ckpt"),
    "segformer": (
        "segformer/segformer.b0.cpu.yaml",
        (*OF_PIXELS, "--base_size", "32,64", "--crop_size", "32,32", "--warmup_steps", "1"),
        "_mit_b0_{}.ckpt",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "optimizer"), [("mobilenetv2_quant", "momentum"), ("mobilenetv2_quant", "adamw"), ("segformer", "adamw")]
)
def test_all_keys_together_resume_bit_for_bit(model, optimizer, images, tmp_path):
    file, flags, name = EVERY_KEY[model]
    data = write_generic(tmp_path / "data", {"train": 8}) if model == "segformer" else images / "train"
    command = [ROOT / "train.py", "--config_path", ROOT / "configs" / file, "--dataset_path", data, *flags, *SHARED]
    command += ["--optimizer", optimizer]
    for folder, more in (("run", ()), ("again", ("--resume", f"again/{model}{name.format(1)}"))):
        if more:
            shutil.copytree(tmp_path / "run", tmp_path / "again")
        result = run_command(*command, "--save_checkpoint_path", folder, *more, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
    assert_same_state(*(tmp_path / folder / f"{model}{name.format(2)}" for folder in ("run", "again")))


@pytest.mark.parametrize(
    ("model", "flags"),
    [
        ("segformer/segformer.b0.cpu.yaml", ("--sampler", "balanced")),
        ("segformer/segformer.b0.cpu.yaml", ("--class_weights", "balanced")),
        ("../default_config_cpu.yaml", ("--ohem_threshold", "0.7")),
        ("mobilenetv2_quant/cpu.yaml", ("--dice_weight", "1")),
    ],
)
def test_what_a_model_does_not_offer_is_refused(model, flags, tmp_path):
    given = ("--config_path", ROOT / "configs" / model, "--dataset_path", tmp_path)
    result = run_command(ROOT / "train.py", *given, *flags, cwd=tmp_path)
    assert result.returncode == 2 and result.stderr.count("error:") == 1
    assert flags[0].removeprefix("--") in result.stderr.splitlines()[-1]
