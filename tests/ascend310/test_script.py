"""scripts/run_infer_310.sh from its arguments to acc.log, on the digits."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.ascend310 import networks
from tests.conftest import ROOT, run_command

CONFIG = "configs/mobilenetv2/digits_cpu.yaml"


@pytest.fixture(scope="session")
def digits(tmp_path_factory) -> Path:
    """The digits, and a network trained on them, exported to ONNX beside an (unread) MINDIR of the same name."""
    root = tmp_path_factory.mktemp("digits")
    assert run_command("tools/make_digits.py", root / "data").returncode == 0
    networks.digits_classifier(root / "net.onnx", root / "data" / "train")
    (root / "net.mindir").write_bytes(b"AscendCL cannot read this")
    made = run_command("tools/make_label_file.py", root / "data" / "val", root / "label.txt")
    assert "360 images of 10 classes" in made.stdout, made.stderr
    return root


@pytest.fixture()
def run_script(toolkit, program_folder, tmp_path):
    def run(*arguments: object, **environment: str):
        # the folder of the tests' build, so that the script builds nothing anew
        known = {"ASCEND_HOME_PATH": str(toolkit), "BUILD_DIR": str(program_folder), "PYTHON": sys.executable}
        return subprocess.run(
            ["bash", str(ROOT / "scripts/run_infer_310.sh"), *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, **known, **environment},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


def scores(folder: Path) -> dict[str, np.ndarray]:
    return {file.name: np.fromfile(file, np.float32) for file in sorted(folder.glob("*_0.bin"))}


def test_digits_in_both_modes(digits, run_script, tmp_path):
    """CPU mode is evaluation's top-1 to the last image, DVPP mode agrees on 98 % of the images."""
    data, label = digits / "data" / "val", digits / "label.txt"
    done = run_script(digits / "net.mindir", data, label, "cpu")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "using " in done.stderr and "net.onnx for net.mindir" in done.stderr
    by_eval = run_command(
        *("eval.py", "--config_path", CONFIG, "--dataset_path", data),
        *("--pretrain_ckpt", digits / "net.onnx", "--eval_backend", "onnx"),
    )
    top1 = float(re.search(r"'acc': ([\d.]+)", by_eval.stdout)[1])
    assert top1 > 0.9
    assert (tmp_path / "acc.log").read_text().startswith(f"'Accuracy': {top1:.5f}\ntop-5: ")
    assert f"top-1: {top1:.5f} of 360 labelled images" in (tmp_path / "infer.log").read_text()
    by_cpu = scores(tmp_path / "result_Files")
    assert len(by_cpu) == 360

    done = run_script(digits / "net.mindir", data, label, "DVPP", "0", BATCH="8")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "360 of 360 done, 0 skipped, 0 decoded without DVPP" in done.stdout
    by_dvpp = scores(tmp_path / "result_Files")
    same = np.mean([by_cpu[name].argmax() == by_dvpp[name].argmax() for name in by_cpu])
    assert same >= 0.98
    assert (tmp_path / "result_Files.1").is_dir() and (tmp_path / "acc.log.1").is_file()  # nothing is deleted
    assert len(list((tmp_path / "om").glob("net-*.om"))) == 2


def test_conversion_is_kept_and_an_om_is_used_as_it_is(digits, run_script, tmp_path):
    data = digits / "data" / "val" / "3"
    first = run_script(digits / "net.onnx", data, "None", "CPU")
    again = run_script(digits / "net.onnx", data, "None", "CPU")
    assert (first.returncode, again.returncode) == (0, 0), first.stderr + again.stderr
    assert "$ atc --framework=5" in first.stderr and "$ atc" not in again.stderr
    om = next((tmp_path / "om").glob("*.om"))
    done = run_script(om, data, "None", "CPU")
    assert done.returncode == 0 and "$ atc" not in done.stderr and not (tmp_path / "acc.log").exists()


def test_skipped_images_show_in_the_status(digits, run_script, tmp_path):
    data = tmp_path / "data" / "3"
    data.mkdir(parents=True)
    (data / "bad.jpg").write_text("no image")
    (data / "good.jpg").write_bytes(next((digits / "data" / "val" / "3").iterdir()).read_bytes())
    (tmp_path / "label.txt").write_text("good:3\nbad:3\n")
    done = run_script(digits / "net.onnx", data, tmp_path / "label.txt", "CPU")
    assert done.returncode == 3, done.stderr
    assert "labels without a result, which are not counted: 1" in (tmp_path / "acc.log").read_text()


def test_wrong_arguments(digits, run_script, tmp_path):
    model, data, label = digits / "net.onnx", digits / "data" / "val", digits / "label.txt"
    for arguments, part in [
        ((), "0 arguments"),
        ((model, data, label), "3 arguments"),
        (("gone", data, label, "CPU"), "MINDIR_PATH 'gone' is not a file"),
        ((model, "gone", label, "CPU"), "DATA_PATH 'gone' is not a folder"),
        ((model, data, "gone", "CPU"), "LABEL_PATH 'gone' is not a file"),
        ((model, data, label, "GPU"), "has to be DVPP or CPU"),
        ((model, data, label, "CPU", "x"), "DEVICE_ID is 'x'"),
    ]:
        done = run_script(*arguments)
        assert (done.returncode, part in done.stderr, "Usage:" in done.stderr) == (2, True, True), done.stderr
    assert not list(tmp_path.iterdir())  # nothing was started


def test_what_a_machine_cannot_do_is_said(digits, run_script, tmp_path):
    data, label = digits / "data" / "val", digits / "label.txt"
    alone = tmp_path / "alone.mindir"
    alone.write_bytes(b"x")
    wrong = tmp_path / "wrong.onnx"
    wrong.write_bytes(b"x")
    air = tmp_path / "network.air"
    air.write_bytes(b"no network")
    for model, environment, part in [
        (
            digits / "net.onnx",
            {"ASCEND_HOME_PATH": str(tmp_path), "ASCEND_HOME": str(tmp_path)},
            "no CANN toolkit found",
        ),
        (alone, {}, "export the network again with --file_format AIR (on Ascend) or ONNX (anywhere)"),
        (wrong, {}, "is no ONNX file"),
        (air, {}, "atc ended with"),
        (digits / "net.onnx", {"SOC_VERSION": "Ascend999"}, "atc ended with 2"),
        (digits / "net.onnx", {"STANDIN_FAIL": "aclInit:1:100001"}, "the application ended with status 1"),
    ]:
        done = run_script(model, data, label, "CPU", **environment)
        assert (done.returncode, part in done.stderr) == (1, True), done.stdout + done.stderr


@pytest.mark.needs_mindspore
def test_mobilenetv2_by_mindspore(run_script, digits, tmp_path):
    """MobileNetV2 itself through atc --framework=1, run by MindSpore: the network's answers to 1e-3."""
    code = """
import sys
from pathlib import Path
import mindspore as ms, numpy as np
from src.engine import images
from src.mobilenetv2 import dataset, network
folder = Path(sys.argv[1])
net = network.build(10, 1.0, 1).set_train(False)
ms.export(net, ms.Tensor(np.zeros((1, 3, 32, 32), np.float32)), file_name=str(folder / "net"), file_format="MINDIR")
for file in (folder / "data").iterdir():
    image = dataset.eval_transform(images.read(file), 32, 32)[None]
    np.save(folder / file.stem, net(ms.Tensor(image)).asnumpy()[0])
"""
    (tmp_path / "data").mkdir()
    for file in sorted((digits / "data" / "val" / "7").iterdir())[:4]:
        (tmp_path / "data" / file.name).write_bytes(file.read_bytes())
    done = run_command("-c", code, tmp_path)
    assert done.returncode == 0, done.stderr
    (tmp_path / "net.mindir").rename(tmp_path / "net.air")
    done = run_script(tmp_path / "net.air", tmp_path / "data", "None", "CPU")
    assert done.returncode == 0 and "atc --framework=1" in done.stderr, done.stdout + done.stderr
    found = scores(tmp_path / "result_Files")
    assert len(found) == 4
    for name, values in found.items():
        expected = np.load(tmp_path / name.replace("_0.bin", ".npy"))
        assert np.abs(values - expected).max() <= 1e-3
