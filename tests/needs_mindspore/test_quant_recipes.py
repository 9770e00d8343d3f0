"""MobileNetV2-quant from the command line: float checkpoint, calibration, training, resume, evaluation, export."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.needs_mindspore
ms = pytest.importorskip("mindspore")

from src.engine import device  # noqa: E402
from src.engine.io import checkpoint  # noqa: E402
from src.mobilenetv2 import network as float_network  # noqa: E402
from tests.conftest import ROOT, run_command, write_settings  # noqa: E402
from tests.needs_mindspore.test_recipes import assert_same_state  # noqa: E402
from tests.networks import calm  # noqa: E402

TINY = {
    "__BASE__": str(ROOT / "configs/mobilenetv2_quant/cpu.yaml"),
    "image_height": 32,
    "image_width": 32,
    "batch_size": 6,
    "width_mult": 0.25,
    "epoch_size": 2,
    "quant_delay": 2,
    "calibration_batches": 2,
    "save_checkpoint_path": "run",
}
CLASS_TO_INDEX = {"cat": 0, "dog": 1, "owl": 2}
LAST = "mobilenetv2_quant-2_4.ckpt"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return write_settings(tmp_path_factory.mktemp("config") / "tiny.yaml", TINY)


@pytest.fixture(scope="module")
def float_checkpoint(tmp_path_factory) -> Path:
    device.setup("CPU")
    net = calm(float_network.build(3, 0.25, seed=1))
    path = tmp_path_factory.mktemp("float") / "float.ckpt"
    about = {"model": "mobilenetv2", "width_mult": 0.25, "class_to_index": CLASS_TO_INDEX}
    checkpoint.save(path, checkpoint.arrays_of(net.get_parameters()), about)
    return path


def command(script: str, tiny: Path, *flags, cwd: Path):
    return run_command(ROOT / script, "--config_path", tiny, *flags, cwd=cwd)


@pytest.fixture(scope="module")
def undisturbed(tiny, images, float_checkpoint, tmp_path_factory) -> tuple[Path, str]:
    """The run folder and output of a training that nothing interrupts."""
    cwd = tmp_path_factory.mktemp("undisturbed")
    flags = ("--dataset_path", images / "train", "--pretrain_ckpt", float_checkpoint)
    result = command("train.py", tiny, *flags, cwd=cwd)
    assert result.returncode == 0, result.stderr
    return cwd / "run", result.stdout


@pytest.mark.slow
def test_training_says_what_it_does(undisturbed):
    run, output = undisturbed
    assert re.search(r"262 arrays matched by name and shape, 0 missing, \d+ of the quantisers new", output)
    assert "activation ranges from 2 batches of 6 images" in output
    phases = re.findall(r"from here on: quantising (\w+), BN frozen (\w+)", output)
    assert phases == [("False", "False"), ("True", "False")]
    names = {path.name for path in run.iterdir()}
    assert {"mobilenetv2_quant-1_4.ckpt", LAST, "curves.png", "train.log"} <= names
    assert checkpoint.read(run / LAST).meta["model"] == "mobilenetv2_quant"


@pytest.mark.slow
def test_a_resumed_run_reaches_the_same_state(undisturbed, tiny, images, float_checkpoint, tmp_path):
    shutil.copytree(undisturbed[0], tmp_path / "run")
    flags = ("--pretrain_ckpt", float_checkpoint, "--resume", "run/mobilenetv2_quant-1_4.ckpt")
    result = command("train.py", tiny, "--dataset_path", images / "train", *flags, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "activation ranges from" not in result.stdout
    assert_same_state(undisturbed[0] / LAST, tmp_path / "run" / LAST)


def test_calibration_evaluation_and_export(tiny, images, float_checkpoint, tmp_path):
    flags = ("--dataset_path", images / "train", "--pretrain_ckpt", float_checkpoint, "--calibrate_only", "3")
    result = command("train.py", tiny, *flags, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "activation ranges from 3 batches of 6 images" in result.stdout
    calibrated = "run/mobilenetv2_quant-calibrated.ckpt"
    before, after = checkpoint.read(float_checkpoint).arrays, checkpoint.read(tmp_path / calibrated).arrays
    assert all((after[name] == array).all() for name, array in before.items())

    flags = ("--ckpt_file", calibrated, "--file_name", "net", "--dataset_path", images / "val", "--report_images", "2")
    result = command("export.py", tiny, *flags, "--file_format", "ONNX", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "52 QLinearConv, 1 QGemm" in result.stdout
    assert "0 layers in float" in result.stdout
    assert {"net.onnx", "net_layers.csv", "net_layers.png"} <= {p.name for p in tmp_path.iterdir()}

    for model, backend in ((calibrated, "mindspore"), ("net.onnx", "onnx")):
        flags = ("--dataset_path", images / "val", "--pretrain_ckpt", model, "--eval_backend", backend)
        result = command("eval.py", tiny, *flags, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        assert "samples: 9 of 9" in result.stdout
        assert "top-5: 1.000000" in result.stdout

    tables = []
    for model, backend in ((calibrated, "mindspore"), ("net.onnx", "onnx")):
        flags = ("--data_path", images / "val", "--pretrain_ckpt", model, "--eval_backend", backend)
        result = command("infer.py", tiny, *flags, cwd=tmp_path)
        assert (result.returncode, result.stderr) == (0, "") and "9 of 9 images" in result.stdout
        lines = (tmp_path / "infer_result" / "predictions.csv").read_text().splitlines()[1:]
        tables.append([[float(share) for share in line.split(",")[3::2]] for line in lines])
    np.testing.assert_allclose(tables[0], tables[1], atol=0.01)

    flags = ("--dataset_path", images / "val", "--network", "calibrated", calibrated, "net.onnx", "--trials", "20")
    result = command("tools/quant_comparison.py", tiny, *flags, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    row = result.stdout.splitlines()[-1]
    found = r"\| calibrated \| \d\.\d{4} \| \d\.\d{4} \| [6-9] of 9 \| \d\.\d\d MB \(1\.00\) \| [0-9.]+ ms \(1\.00\)"
    assert re.match(found, row), row


@pytest.mark.slow
def test_learned_steps_from_calibration_to_integers(tiny, images, float_checkpoint, tmp_path):
    """With steps that training has moved, evaluation and file agree and every layer runs with integers."""
    lsq, train = ("--quant_method", "lsq", "--quant_delay", "1"), ("--dataset_path", images / "train")
    flags = (*lsq, *train, "--pretrain_ckpt", float_checkpoint, "--calibrate_only", "2")
    calibrated = "run/mobilenetv2_quant-calibrated.ckpt"
    for _ in range(2):
        result = command("train.py", tiny, *flags, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
    assert (tmp_path / "run/previous/1/mobilenetv2_quant-calibrated.ckpt").is_file()
    flags = (*lsq, *train, "--pretrain_ckpt", calibrated, "--epoch_size", "1", "--freeze_bn", "2")
    result = command("train.py", tiny, *flags, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert f"activation ranges are those of {calibrated}" in result.stdout
    phases = re.findall(r"from here on: quantising (\w+), BN frozen (\w+)", result.stdout)
    assert phases == [("False", "False"), ("True", "False"), ("True", "True")]

    last = "run/mobilenetv2_quant-1_4.ckpt"
    before, after = (checkpoint.read(tmp_path / path).arrays for path in (calibrated, last))
    assert sum((before[name] != after[name]).any() for name in before if name.endswith(".output.scale")) > 50
    result = command(
        "export.py", tiny, *lsq, "--ckpt_file", last, "--file_name", "net", "--file_format", "ONNX", cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    assert "52 QLinearConv, 1 QGemm" in result.stdout and "0 layers in float" in result.stdout


@pytest.mark.slow
def test_mindir_holds_the_simulated_network(undisturbed, tiny, tmp_path):
    result = command("export.py", tiny, "--ckpt_file", undisturbed[0] / LAST, "--file_name", "net", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "largest difference to the network on random input: 0\n" in result.stdout
    assert "52 QLinearConv, 1 QGemm" in result.stdout and (tmp_path / "net.onnx").is_file()


def test_a_float_checkpoint_is_not_evaluated_as_a_quantised_one(tiny, images, float_checkpoint, tmp_path):
    flags = ("--dataset_path", images / "val", "--pretrain_ckpt", float_checkpoint)
    result = command("eval.py", tiny, *flags, cwd=tmp_path)
    assert result.returncode == 1
    assert "is no mobilenetv2_quant checkpoint" in result.stderr
