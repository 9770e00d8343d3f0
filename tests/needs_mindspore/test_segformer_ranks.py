"""SegFormer on two real ranks on CPU: they train as one process does and together evaluate every image once.

Batch normalisation counts per rank, so the one process that they are compared with computes the two halves of each
batch in two passes. Which normalisation a training builds is checked without ranks.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.needs_mindspore
ms = pytest.importorskip("mindspore")

from mindspore.nn.layer import normalization  # noqa: E402

from src import zoo  # noqa: E402
from src.engine import device  # noqa: E402
from src.engine.data import stream  # noqa: E402
from src.engine.io import checkpoint  # noqa: E402
from src.engine.ranks import Rank  # noqa: E402
from src.engine.steps import step  # noqa: E402
from src.segformer import network, recipe, training  # noqa: E402
from src.segformer.data import dataset  # noqa: E402
from src.segformer.loss import cross_entropy  # noqa: E402
from tests.conftest import ROOT, run_command, write_settings  # noqa: E402
from tests.needs_mindspore.test_ranks import launch, rows  # noqa: E402
from tests.segmentation_data import write_generic  # noqa: E402

RANKS = 2
SETTINGS = {
    "__BASE__": str(ROOT / "configs" / "segformer" / "segformer.b0.cpu.yaml"),
    "base_size": [32, 64],
    "crop_size": [32, 64],
    "class_num": 3,
    "batch_size": 4,
    "epoch_size": 1,
    "warmup_steps": 0,
    "train_log_interval": 1,
    "cpu_kernels": "off",
    "checkpoint_path": "run",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """8 training images, which are 2 steps, and 5 validation images: one rank has one more than the other."""
    return write_generic(tmp_path_factory.mktemp("data"), {"train": 8, "val": 5})


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> Path:
    return write_settings(tmp_path_factory.mktemp("config") / "two_ranks.yaml", SETTINGS)


@pytest.fixture(scope="module")
def trained(settings, data, tmp_path_factory) -> Path:
    """The folder of a training on two ranks."""
    cwd = tmp_path_factory.mktemp("two_ranks")
    result = launch("train.py", settings, data, "--run_distribute", "True", cwd=cwd, data_flag="--data_path")
    assert result.returncode == 0, result.stdout + result.stderr
    return cwd


def train_alone(settings: Path, data: Path) -> tuple[list[float], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Losses, first and last weights of one process that computes each rank's share of a batch by itself."""
    cfg = zoo.configure("train", ["--config_path", str(settings), "--data_path", str(data)])
    device.setup("CPU")
    pairs = recipe.find(recipe.TRAIN, cfg)
    net = network.build(cfg.backbone, cfg.class_num, cfg.decoder_dim, cfg.seed)
    net.set_train(True)
    optimizer = training.optimizer(net, cfg)
    first = {name: array.copy() for name, array in checkpoint.arrays_of(net.trainable_params()).items()}
    weights = ms.Tensor(pairs.classes.weights if cfg.class_weights else [1.0] * len(pairs.classes), ms.float32)

    def share_of_loss(image, label, keep, keep_channel):
        return cross_entropy(net(image, keep.transpose(1, 2, 0), keep_channel), label, weights, pairs.classes.ignore)

    def loss(*inputs):
        half = len(inputs) // RANKS
        return (share_of_loss(*inputs[:half]) + share_of_loss(*inputs[half:])) / RANKS

    train = step.make_step(loss, optimizer)
    rates = training.schedule(pairs, cfg, Rank()).lr
    bad = stream.BadFiles("error", print)
    loaders = [dataset.Loader(pairs, cfg, bad, stream.Shard(index, RANKS)) for index in range(RANKS)]
    streams = [training.batches(loader, net.decode_head.width) for loader in loaders]
    batches = zip(*(arriving(0, 0) for arriving in streams))
    losses = [float(train(float(rate), *one, *other).asnumpy()) for rate, (one, other) in zip(rates, batches)]
    return losses, first, checkpoint.arrays_of(net.trainable_params())


@pytest.mark.slow
def test_two_ranks_train_as_one_process_does(trained, settings, data):
    losses, first, last = train_alone(settings, data)
    found = rows(trained / "run", "train")
    assert sorted(found) == [1, 2]
    assert len(losses) == 2
    np.testing.assert_allclose([found[at]["loss"] for at in sorted(found)], losses, rtol=2e-4)
    arrays = checkpoint.read(trained / "run" / "segformer_mit_b0_1.ckpt").arrays
    # AdamW moves what has hardly a gradient in the direction of the rounding, so all weights are compared as one.
    apart = sum(float(np.square(arrays[name] - array).sum()) for name, array in last.items())
    moved = sum(float(np.square(first[name] - array).sum()) for name, array in last.items())
    assert moved > 0
    assert apart < 0.02**2 * moved


@pytest.mark.slow
def test_two_ranks_evaluate_every_image_once(trained, settings, data, tmp_path):
    assert [row["images"] for row in rows(trained / "run", "eval").values()] == [5]
    model = trained / "run" / "segformer_mit_b0_1.ckpt"
    flags = ("--eval_ckpt_path", model, "--eval_json")
    two = launch(
        "eval.py", settings, data, "--run_distribute", "True", *flags, tmp_path / "two.json",
        cwd=tmp_path, data_flag="--data_path",
    )  # fmt: skip
    one = run_command(ROOT / "eval.py", "--config_path", settings, "--data_path", data, *flags, tmp_path / "one.json")
    assert (two.returncode, one.returncode) == (0, 0), two.stdout + two.stderr + one.stderr
    assert "images: 5 of 5" in two.stdout
    scores = [json.loads((tmp_path / name).read_text()) for name in ("one.json", "two.json")]
    assert scores[0] == scores[1]
    assert scores[0]["images"] == 5
    assert scores[0]["miou"] == pytest.approx(next(iter(rows(trained / "run", "eval").values()))["miou"], abs=1e-6)
    assert scores[0]["pixels"] == sum(int((mask != 255).sum()) for mask in masks(data))


def masks(data: Path) -> list[np.ndarray]:
    pairs = dataset.find_pairs(str(data), recipe.VAL)
    return [pairs.read(index)[1] for index in range(len(pairs))]


def test_all_ranks_evaluate_with_the_statistics_of_the_first():
    class Second(Rank):
        def total(self, values):
            return values + 7.0  # what the first rank adds

    nets = [network.build("mit_b0", 3, 0, seed=1) for _ in range(2)]
    Second(1, RANKS).share_statistics(nets[0])
    for found, before in zip(*(net.get_parameters() for net in nets)):
        is_statistic = found.name.endswith(("moving_mean", "moving_variance"))
        assert (found.asnumpy() == (7.0 if is_statistic else before.asnumpy())).all(), found.name


def on_ascend(build):
    """The same constructor, which takes this machine for an Ascend server."""

    def built(self, *arguments, **options):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(normalization.context, "get_context", lambda key: "Ascend")
            build(self, *arguments, **options)

    return built


class Built(Exception):
    """Ends a training as soon as its network is built; holds the network."""


@pytest.mark.parametrize(
    ("platform", "distribute", "synchronous"),
    [
        ("Ascend", True, True),
        ("Ascend", False, False),
        ("GPU", True, False),
        ("CPU", True, False),
        ("CPU", False, False),
    ],
)
def test_only_several_ascend_cards_normalise_together(monkeypatch, settings, data, platform, distribute, synchronous):
    """Which of the two a training builds; the synchronous operator itself runs on Ascend only."""

    def build_and_stop(*arguments):
        raise Built(network_build(*arguments))

    network_build = network.build
    for name, value in (("get_rank", 0), ("get_group_size", RANKS)):
        monkeypatch.setattr(normalization, name, lambda value=value: value)
    monkeypatch.setattr(ms.nn.SyncBatchNorm, "__init__", on_ascend(ms.nn.SyncBatchNorm.__init__))
    monkeypatch.setattr(recipe.network, "build", build_and_stop)
    monkeypatch.setattr(recipe.device, "setup", lambda *_: Rank(0, RANKS if distribute else 1))
    flags = ["--data_path", data, "--platform", platform, "--run_distribute", distribute]
    cfg = zoo.configure("train", ["--config_path", str(settings), *map(str, flags)])
    with pytest.raises(Built) as caught:
        recipe.train(cfg)
    norm = caught.value.args[0].decode_head.bn
    assert type(norm) is (ms.nn.SyncBatchNorm if synchronous else ms.nn.BatchNorm2d)
    assert norm.bn_train.name == ("SyncBatchNorm" if synchronous else "BatchNorm")
