"""A second classifier needs a network, a configuration and a YAML file of its own, and one line of registration."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.needs_mindspore
pytest.importorskip("mindspore")

from src.engine.io import checkpoint  # noqa: E402
from tests.conftest import ROOT, run_command  # noqa: E402
from tests.waiting import wait_until  # noqa: E402

TOY = ROOT / "tests" / "toy_classifier"
MOST_LINES = 80
REGISTRATION = '    "toy": "Toy image classification",\n'


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """The project's programs, with the toy beside the other models and one more line in zoo.py."""
    root = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("train.py", "eval.py", "infer.py", "export.py", "default_config.yaml", "default_config_cpu.yaml"):
        shutil.copy(ROOT / name, root)
    shutil.copytree(TOY, root / "src" / "toy", ignore=shutil.ignore_patterns("__pycache__", "*.yaml"))
    shutil.copy(TOY / "toy.yaml", root)
    (ROOT / ".cache").mkdir(exist_ok=True)
    (root / ".cache").symlink_to(ROOT / ".cache")  # the same kernels need not be compiled again
    zoo = root / "src" / "zoo.py"
    text = zoo.read_text(encoding="utf-8")
    assert text.count("MODELS = {\n") == 1
    zoo.write_text(text.replace("MODELS = {\n", "MODELS = {\n" + REGISTRATION), encoding="utf-8")
    return root


def command(checkout: Path, script: str, data: Path, *flags: object) -> list[object]:
    return [checkout / script, "--config_path", checkout / "toy.yaml", "--dataset_path", data, *flags]


def run(checkout: Path, script: str, data: Path, *flags: object, cwd: Path) -> str:
    result = run_command(*command(checkout, script, data, *flags), cwd=cwd, PYTHONPATH="")
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def trained(checkout, images, tmp_path_factory) -> Path:
    """The folder of a training that nothing interrupts."""
    cwd = tmp_path_factory.mktemp("undisturbed")
    run(checkout, "train.py", images / "train", "--run_eval", "True", cwd=cwd)
    return cwd / "checkpoint"


def test_it_is_small():
    lines = [line for path in TOY.iterdir() if path.is_file() for line in path.read_text().splitlines()]
    assert len([line for line in lines if line.strip()]) <= MOST_LINES


def test_killed_and_resumed_gives_the_same_weights(checkout, trained, images, tmp_path):
    flags = ("--run_eval", "True", "--resume", "auto", "--save_checkpoint_steps", "1")
    training = [sys.executable, *command(checkout, "train.py", images / "train", *flags)]
    with subprocess.Popen(training, cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
        wait_until(lambda: list(tmp_path.glob("checkpoint/toy-*.ckpt")), "a checkpoint", process=process)
        process.kill()
    said = run(checkout, "train.py", images / "train", *flags, cwd=tmp_path)
    assert "resumed from checkpoint/toy-" in said
    found = [checkpoint.read(folder / "toy-4_4.ckpt").arrays for folder in (trained, tmp_path / "checkpoint")]
    assert found[0].keys() == found[1].keys()
    for name, array in found[0].items():
        assert (array == found[1][name]).all(), name


def test_evaluation_of_checkpoint_and_exported_files(checkout, trained, images, tmp_path):
    best = trained / "toy-best.ckpt"
    said = run(checkout, "eval.py", images / "val", "--pretrain_ckpt", best, cwd=tmp_path)
    result = re.search(r"result: {'acc': ([\d.]+)}", said)[0]
    assert "samples: 9 of 9" in said
    for file_format in ("MINDIR", "ONNX"):
        flags = ("--ckpt_file", best, "--file_format", file_format, "--file_name", "toy")
        assert "largest difference to the network on real" in run(
            checkout, "export.py", images / "val", *flags, cwd=tmp_path
        )
    assert (tmp_path / "toy.mindir").is_file()
    flags = ("--pretrain_ckpt", "toy.onnx", "--eval_backend", "onnx")
    assert result in run(checkout, "eval.py", images / "val", *flags, cwd=tmp_path)
    for model in (flags, ("--pretrain_ckpt", best)):
        predicted = [checkout / "infer.py", "--config_path", checkout / "toy.yaml", "--data_path", images / "val"]
        said = run_command(*predicted, *model, cwd=tmp_path, PYTHONPATH="").stdout
        right = re.search(r"right: (\d) of 9 images", said)[1]
        assert int(right) == round(float(result.split()[-1].rstrip("}")) * 9)


def test_head_only_leaves_the_backbone_as_it_is(checkout, trained, images, tmp_path):
    best = trained / "toy-best.ckpt"
    said = run(
        checkout, "train.py", images / "train", "--pretrain_ckpt", best, "--freeze_layer", "backbone", cwd=tmp_path
    )
    assert "features of 24 images written" in said
    arrays = checkpoint.read(tmp_path / "checkpoint" / "toy_head_4.ckpt").arrays
    for name, array in checkpoint.read(best).arrays.items():
        assert (arrays[name] == array).all() == name.startswith("backbone."), name


def test_a_taught_run_resumes_and_needs_its_teacher(checkout, trained, images, tmp_path):
    """A narrower network learns from the trained one, which is exported for that."""
    best = trained / "toy-best.ckpt"
    refused = run_command(*command(checkout, "train.py", images / "train", "--teacher", best), cwd=tmp_path)
    assert refused.returncode == 2 and "toy teaches from an ONNX file; export it first" in refused.stderr
    run(checkout, "export.py", images / "val", "--ckpt_file", best, "--file_name", "best", cwd=tmp_path)
    flags = ("--channels", "4", "--teacher", "best.onnx", "--distill_alpha", "0.9", "--epoch_size", "2")
    run(checkout, "train.py", images / "train", *flags, cwd=tmp_path)
    shutil.copytree(tmp_path / "checkpoint", tmp_path / "again")
    resumed = ("--save_checkpoint_path", "again", "--resume", "again/toy-1_4.ckpt")
    run(checkout, "train.py", images / "train", *flags, *resumed, cwd=tmp_path)
    found = [checkpoint.read(tmp_path / folder / "toy-2_4.ckpt").arrays for folder in ("checkpoint", "again")]
    assert all((array == found[1][name]).all() for name, array in found[0].items())
    alone = command(checkout, "train.py", images / "train", *flags[:2], *flags[-2:], *resumed)
    result = run_command(*alone, cwd=tmp_path, PYTHONPATH="")
    assert result.returncode == 1 and "was made with another teacher" in result.stderr
