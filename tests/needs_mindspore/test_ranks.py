"""Two real ranks on CPU (msrun): same training as one process, one stop for all, one writer, nobody left behind.

Data parallel training normalises each rank's part of a batch by itself (BN statistics are not shared), so the one
process that it is compared with computes the two halves of each batch in two passes and averages their losses.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest

pytestmark = [pytest.mark.needs_mindspore, pytest.mark.slow]
ms = pytest.importorskip("mindspore")

from src.engine import config, device  # noqa: E402
from src.engine.data.image_folder import TRAIN_FOLDERS, scan  # noqa: E402
from src.engine.data.stream import BadFiles  # noqa: E402
from src.engine.io import checkpoint  # noqa: E402
from src.engine.ranks import Rank  # noqa: E402
from src.engine.steps import step  # noqa: E402
from src.mobilenetv2 import network  # noqa: E402
from src.mobilenetv2.config import Config  # noqa: E402
from src.mobilenetv2.loss import cross_entropy  # noqa: E402
from src.mobilenetv2.lr_generator import Rates, get_lr  # noqa: E402
from tests.conftest import CLASSES, ROOT, run_command, write_settings  # noqa: E402
from tests.loaders import class_batches  # noqa: E402
from tests.networks import calm  # noqa: E402
from tests.scripts.ports import free_port  # noqa: E402
from tests.waiting import wait_until  # noqa: E402

HALF = 12  # images per step and rank
SIZE = 64
SETTINGS = {
    "__BASE__": str(ROOT / "default_config_cpu.yaml"),
    "image_height": SIZE,
    "image_width": SIZE,
    "batch_size": HALF,
    "width_mult": 0.25,
    "epoch_size": 3,
    "lr_max": 0.005,
    "lr_end": 0.0,
    "cpu_kernels": False,
    "save_checkpoint_path": "run",
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """train/ (3 x 16 images) and val/ (3 x 3 images) of smooth patches, which normalise better than noise."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for split, per_class in (("train", 16), ("val", 3)):
        for index, name in enumerate(CLASSES):
            (root / split / name).mkdir(parents=True)
            for number in range(per_class):
                image = cv2.resize(rng.integers(0, 196, (6, 6, 3), dtype=np.uint8), (SIZE, SIZE))
                image[..., index] += 60
                cv2.imwrite(str(root / split / name / f"{number:03d}.png"), image)
    return root


@pytest.fixture(scope="module")
def initial(tmp_path_factory) -> Path:
    """The checkpoint that every training here starts from."""
    device.setup("CPU")
    net = calm(network.build(len(CLASSES), SETTINGS["width_mult"], seed=5))
    path = tmp_path_factory.mktemp("initial") / "calm.ckpt"
    checkpoint.save(path, checkpoint.arrays_of(net.get_parameters()), {"model": "mobilenetv2", "width_mult": 0.25})
    return path


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> Path:
    return write_settings(tmp_path_factory.mktemp("config") / "two_ranks.yaml", SETTINGS)


def command(
    script: str, settings: Path, data: Path, *flags: str, ranks: int = 2, data_flag: str = "--dataset_path"
) -> list[str]:
    """The launcher's command line for `ranks` processes."""
    launch = ["-m", "src.launch", "--device_num", str(ranks), "--master_port", str(free_port()), "--first_log", "0.log"]
    return [*launch, str(ROOT / script), "--config_path", str(settings), data_flag, str(data), *map(str, flags)]


def launch(*arguments, cwd: Path, **options):
    return run_command(*command(*arguments, **options), cwd=cwd, PYTHONPATH=str(ROOT))


def start(*arguments, cwd: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *command(*arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def rows(run: Path, kind: str) -> dict[int, dict]:
    """What metrics.jsonl says last about each step or epoch."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {row["at"]: row for row in found if row["kind"] == kind}


def workers_in(folder: Path) -> list[psutil.Process]:
    """Processes that work in a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()) == folder and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.fixture(scope="module")
def reference(photos, initial) -> tuple[list[float], dict[str, np.ndarray]]:
    """Losses and final weights of one process that treats the two halves of each batch as two ranks do."""
    values = {**config.read_yaml(Path(SETTINGS["__BASE__"]))}
    values.update({key: config.Value(raw, "test") for key, raw in SETTINGS.items() if key != "__BASE__"})
    values["batch_size"] = config.Value(2 * HALF, "test")
    cfg = config.build(Config, config.canonical(Config, values))
    device.setup("CPU")
    folder = scan(str(photos / "train"), TRAIN_FOLDERS)
    net = network.build(len(CLASSES), cfg.width_mult, cfg.seed)
    checkpoint.load(net, checkpoint.read(initial).arrays, "initial")
    net.set_train(True)
    optimizer = step.momentum_optimizer(net, cfg.momentum, cfg.weight_decay)

    def loss(image, target):
        first = cross_entropy(net(image[:HALF]), target[:HALF])
        return (first + cross_entropy(net(image[HALF:]), target[HALF:])) / 2

    compiled = step.make_step(loss, optimizer)
    steps = len(folder) // (2 * HALF)
    rates = get_lr(Rates(cfg.lr_init, cfg.lr_end, cfg.lr_max), cfg.warmup_epochs, cfg.epoch_size, steps)
    losses = []
    for epoch in range(cfg.epoch_size):
        for inputs in class_batches(folder, cfg, BadFiles("error", print), epoch):
            losses.append(float(compiled(float(rates[len(losses)]), *inputs).asnumpy()))
    return losses, checkpoint.arrays_of(net.trainable_params())


@pytest.fixture(scope="module")
def disturbed(settings, photos, initial, tmp_path_factory) -> Path:
    """The folder of a two-rank training that was asked to stop, resumed, lost a rank, and was resumed to its end."""
    cwd = tmp_path_factory.mktemp("two_ranks")
    flags = ("--pretrain_ckpt", initial, "--freeze_layer", "none", "--save_checkpoint_steps", "1")
    first = start("train.py", settings, photos / "train", *flags, cwd=cwd)
    wait_until(lambda: list(cwd.glob("run/mobilenetv2-*.ckpt")), "the first checkpoint", process=first)
    first.send_signal(signal.SIGTERM)
    output, errors = first.communicate(timeout=900)
    if first.returncode:  # else the last step was over before the signal came
        assert first.returncode == 143, output + errors
        assert "stopped by SIGTERM; the state is saved" in output
    assert not workers_in(cwd)

    stopped_at = sorted(path.name for path in (cwd / "run").glob("*.ckpt"))[-1]
    flags += ("--resume", "auto")
    second = start("train.py", settings, photos / "train", *flags, cwd=cwd)
    wait_until((cwd / "run" / "mobilenetv2-2_2.ckpt").exists, "the second checkpoint", process=second)
    for worker in workers_in(cwd):
        with contextlib.suppress(psutil.Error):
            told = worker.environ()
            is_training = str(ROOT / "train.py") in worker.cmdline()
            if is_training and (told.get("MS_ROLE"), told.get("RANK_ID")) == ("MS_WORKER", "1"):
                worker.kill()
    output, errors = second.communicate(timeout=900)
    assert f"resumed from run/{stopped_at}" in output
    if second.returncode:  # else the last epoch was over before the signal came
        assert second.returncode == 137, output + errors
        assert "rank 1 was ended by SIGKILL" in errors
    assert not workers_in(cwd)

    result = launch("train.py", settings, photos / "train", *flags, cwd=cwd)
    assert result.returncode == 0, result.stdout + result.stderr
    return cwd


def test_two_ranks_train_as_one_process_does(disturbed, reference):
    losses, weights = reference
    found = rows(disturbed / "run", "train")
    assert sorted(found) == list(range(1, len(losses) + 1))
    np.testing.assert_allclose([found[at]["loss"] for at in sorted(found)], losses, rtol=2e-4)
    arrays = checkpoint.read(disturbed / "run" / "mobilenetv2-3_2.ckpt").arrays
    for name, array in weights.items():
        np.testing.assert_allclose(arrays[name], array, atol=2e-4, err_msg=name)


def test_only_the_first_rank_writes_and_each_has_a_log(disturbed):
    assert {path.name for path in (disturbed / "run").iterdir()} >= {"config.yaml", "train.log", "metrics.jsonl"}
    assert (disturbed / "0.log").is_file() and (disturbed / "train" / "rank1" / "log1.log").is_file()
    assert not (disturbed / "train" / "rank1" / "run").exists()
    assert "avg loss" in (disturbed / "train" / "rank1" / "log1.log").read_text()


def test_evaluation_on_two_ranks_counts_every_sample_once(disturbed, settings, photos, tmp_path):
    model = disturbed / "run" / "mobilenetv2-3_2.ckpt"
    flags = ("--pretrain_ckpt", model, "--batch_size", "2", "--num_classes", "3")
    two = launch("eval.py", settings, photos / "val", *flags, cwd=tmp_path)
    one = run_command(ROOT / "eval.py", "--config_path", settings, "--dataset_path", photos / "val", *flags)
    assert (two.returncode, one.returncode) == (0, 0), two.stdout + two.stderr + one.stderr
    assert "samples: 9 of 9" in two.stdout
    results = [next(line for line in r.stdout.splitlines() if line.startswith("result:")) for r in (one, two)]
    assert results[0] == results[1]


def test_head_only_training_on_two_ranks_is_that_of_one(disturbed, settings, photos, tmp_path):
    """No batch normalisation takes part, so nothing has to be left aside: losses and weights are equal."""
    model = disturbed / "run" / "mobilenetv2-3_2.ckpt"
    flags = ("--pretrain_ckpt", model, "--freeze_layer", "backbone", "--run_eval", "True")
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    two = launch("train.py", settings, photos / "train", *flags, cwd=tmp_path / "two")
    assert two.returncode == 0, two.stdout + two.stderr
    one = run_command(
        ROOT / "train.py", "--config_path", settings, "--dataset_path", photos / "train", *flags,
        "--batch_size", 2 * HALF, cwd=tmp_path / "one",
    )  # fmt: skip
    assert one.returncode == 0, one.stderr
    for kind, key in (("train", "loss"), ("eval", "top1")):
        first, second = rows(tmp_path / "one" / "run", kind), rows(tmp_path / "two" / "run", kind)
        assert first.keys() == second.keys() and first
        np.testing.assert_allclose([first[at][key] for at in first], [second[at][key] for at in first], rtol=1e-5)
    arrays = [checkpoint.read(tmp_path / n / "run" / "mobilenetv2_head_3.ckpt").arrays for n in ("one", "two")]
    for name in arrays[0]:
        np.testing.assert_allclose(arrays[0][name], arrays[1][name], atol=1e-5, err_msg=name)
    assert len(list((tmp_path / "two" / "run" / "features").glob("*.npz"))) == 2


def test_counts_stay_exact_beyond_float32():
    """The digits that total_counts sends are small enough for float32 sums over many ranks."""

    class Many(Rank):
        def total(self, values):
            return np.sum([values.astype(np.float32)] * self.count, axis=0, dtype=np.float32)

    counts = np.array([[0, 1, 2**24 + 1], [2**40 + 3, 2**31 - 1, 12345678901]], np.int64)
    for ranks in (2, 8, 256):
        assert (Many(0, ranks).total_counts(counts) == counts * ranks).all()
