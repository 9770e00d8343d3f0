"""scripts/run_infer_310.sh from its arguments to acc.log, with networks of the zoo."""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from src.engine.errors import ZooError
from src.engine.export.exported_model import META_KEY
from tests.ascend310.conftest import lacking, locked, run_program
from tests.ascend310.test_app import scores_of
from tests.conftest import ROOT, run_command
from tests.segmentation_data import write_generic
from tools import make_om

pytestmark = pytest.mark.needs_mindspore
CONFIG = "configs/mobilenetv2/digits_cpu.yaml"


@pytest.fixture(scope="module")
def zoo(tmp_path_factory) -> Path:
    """data/ (digits), label.txt and pictures/; MobileNetV2 as net.onnx (beside an unread net.mindir) and air/net.air;
    SegFormer as seg.onnx, and by_infer/, what infer.py wrote for the pictures."""
    if not importlib.util.find_spec("mindspore"):
        lacking("mindspore is not installed")
    root = tmp_path_factory.mktemp("zoo")
    assert run_command("examples/make_digits.py", root / "data").returncode == 0
    write_generic(root / "pictures", {"fits": 2}, size=(64, 64))
    write_generic(root / "pictures", {"wide": 2, "test": 1}, size=(50, 81))
    done = run_command("-m", "tests.ascend310.zoo_networks", root / "data" / "train", root / "pictures", root)
    assert done.returncode == 0, done.stdout + done.stderr
    (root / "net.mindir").write_bytes(b"AscendCL cannot read this")
    made = run_command("tools/make_label_file.py", root / "data" / "val", root / "label.txt")
    assert "360 images of 10 classes" in made.stdout, made.stderr
    return root


@pytest.fixture()
def run_script(toolkit, program_folder, tmp_path):
    def run(*arguments: object, **environment: str):
        # the folder of the tests' build, so that the script builds nothing anew
        known = {"ASCEND_HOME_PATH": str(toolkit), "BUILD_DIR": str(program_folder), "PYTHON": sys.executable}
        with locked(program_folder):
            command = ["bash", ROOT / "scripts/run_infer_310.sh", *arguments]
            return run_program(*command, cwd=tmp_path, timeout=900, **{**known, **environment})

    return run


def scores(folder: Path) -> dict[str, np.ndarray]:
    return {file.name: np.fromfile(file, np.float32) for file in sorted(folder.glob("*_0.bin"))}


def largest_difference(onnx: Path, data: Path, found: dict[str, np.ndarray]) -> float:
    """Between results of the application and the network on what evaluation makes of the images."""
    files = {f"{file.stem}_0.bin": file for file in data.rglob("*.*") if file.is_file()}
    return max(np.abs(found[name] - scores_of(onnx, files[name])[0].ravel()).max() for name in found)


def test_digits_in_both_modes(zoo, run_script, tmp_path):
    """CPU mode is evaluation's top-1 to the last image, DVPP mode agrees on 98 % of the images."""
    data, label = zoo / "data" / "val", zoo / "label.txt"
    done = run_script(zoo / "net.mindir", data, label, "cpu")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "using " in done.stderr and "net.onnx for net.mindir" in done.stderr
    by_eval = run_command(
        *("eval.py", "--config_path", CONFIG, "--dataset_path", data),
        *("--pretrain_ckpt", zoo / "net.onnx", "--eval_backend", "onnx"),
    )
    top1 = float(re.search(r"'acc': ([\d.]+)", by_eval.stdout)[1])
    assert top1 > 0.85
    assert (tmp_path / "acc.log").read_text().startswith(f"'Accuracy': {top1:.5f}\ntop-5: ")
    assert f"top-1: {top1:.5f} of 360 labelled images" in (tmp_path / "infer.log").read_text()
    by_cpu = scores(tmp_path / "result_Files")
    assert len(by_cpu) == 360 and largest_difference(zoo / "net.onnx", data, by_cpu) <= 1e-3

    done = run_script(zoo / "net.mindir", data, label, "DVPP", "0", BATCH="8")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "360 of 360 done, 0 skipped, 0 decoded without DVPP" in done.stdout
    by_dvpp = scores(tmp_path / "result_Files")
    same = np.mean([by_cpu[name].argmax() == by_dvpp[name].argmax() for name in by_cpu])
    assert same >= 0.98
    assert (tmp_path / "result_Files.1").is_dir() and (tmp_path / "acc.log.1").is_file()  # nothing is deleted
    assert len(list((tmp_path / "om").glob("net-*.om"))) == 2


def test_a_mindir_file_runs_with_what_its_export_wrote(zoo, run_script, tmp_path):
    """The seed's two commands: export.py --file_format MINDIR, then run_infer_310.sh X.mindir."""
    data = zoo / "data" / "val" / "5"
    done = run_script(zoo / "exported" / "net.mindir", data, "None", "CPU")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "exported/net.onnx for net.mindir" in done.stderr and "OLDER" not in done.stderr
    found = scores(tmp_path / "result_Files")
    assert len(found) == len(list(data.iterdir())) and largest_difference(zoo / "net.onnx", data, found) <= 1e-3


def test_the_file_says_how_images_are_cut(zoo, run_script, tmp_path):
    model, data = onnx.load(zoo / "net.onnx"), zoo / "data" / "val" / "5"
    entry = next(entry for entry in model.metadata_props if entry.key == META_KEY)
    entry.value = about = json.dumps({**json.loads(entry.value), "crop_pct": 1.0})
    onnx.save(model, tmp_path / "whole.onnx")
    done = run_script(tmp_path / "whole.onnx", data, "None", "CPU")
    assert done.returncode == 0, done.stdout + done.stderr
    air, on_cpu = tmp_path / "net.air", argparse.Namespace(mode="CPU", aipp=make_om.AIPP)
    assert make_om.application_options(air, air, on_cpu) == []
    (tmp_path / "net.air.json").write_text(about)
    assert make_om.application_options(air, air, on_cpu) == ["--resize_ratio=1.0"]
    file = next(data.iterdir())
    found = scores(tmp_path / "result_Files")[f"{file.stem}_0.bin"]
    whole, middle = (scores_of(zoo / "net.onnx", file, crop_pct=share)[0].ravel() for share in (1.0, 0.875))
    assert np.abs(found - whole).max() <= 1e-3 < np.abs(found - middle).max()


def test_the_file_says_how_images_are_normalised(tmp_path):
    air = tmp_path / "net.air"
    (tmp_path / "net.air.json").write_text(json.dumps({"mean": [127.5] * 3, "std": [58.395, 57.12, 57.375]}))
    asked = argparse.Namespace(mode="CPU", aipp=make_om.AIPP)
    assert make_om.application_options(air, air, asked) == ["--mean=127.5,127.5,127.5"]
    asked.mode = "DVPP"
    with pytest.raises(ZooError, match=r"was trained with mean \[127.5, 127.5, 127.5\], and aipp_yuv.cfg normalises"):
        make_om.application_options(air, air, asked)
    asked.aipp = tmp_path / "own.cfg"
    assert make_om.application_options(air, air, asked) == []


def test_conversion_is_kept_and_an_om_is_used_as_it_is(zoo, run_script, tmp_path):
    data = zoo / "data" / "val" / "3"
    first = run_script(zoo / "net.onnx", data, "None", "CPU")
    again = run_script(zoo / "net.onnx", data, "None", "CPU")
    assert (first.returncode, again.returncode) == (0, 0), first.stderr + again.stderr
    assert "$ atc --framework=5" in first.stderr and "$ atc" not in again.stderr
    names = {file.name for file in tmp_path.iterdir() if ".log" in file.name}
    assert names == {"infer.log", "infer.log.1", "build.log", "build.log.1", "atc.log.1"}  # of the first run: .1
    om = next((tmp_path / "om").glob("*.om"))
    done = run_script(om, data, "None", "CPU")
    assert done.returncode == 0 and "$ atc" not in done.stderr and not (tmp_path / "acc.log").exists()


def test_skipped_images_show_in_the_status(zoo, run_script, tmp_path):
    data = tmp_path / "data" / "3"
    data.mkdir(parents=True)
    (data / "bad.jpg").write_text("no image")
    (data / "good.jpg").write_bytes(next((zoo / "data" / "val" / "3").iterdir()).read_bytes())
    (tmp_path / "label.txt").write_text("good:3\nbad:3\n")
    done = run_script(zoo / "net.onnx", data, tmp_path / "label.txt", "CPU")
    assert done.returncode == 3, done.stderr
    assert "labels without a result, which are not counted: 1" in (tmp_path / "acc.log").read_text()


def test_wrong_arguments(zoo, run_script, tmp_path):
    model, data, label = zoo / "net.onnx", zoo / "data" / "val", zoo / "label.txt"
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
    for batch in ("0", "00", "x"):
        done = run_script(model, data, label, "CPU", BATCH=batch)
        assert (done.returncode, f"BATCH is '{batch}'" in done.stderr) == (2, True), done.stderr
    assert not list(tmp_path.iterdir())  # nothing was started


def test_what_a_machine_cannot_do_is_said(zoo, run_script, tmp_path):
    data, label = zoo / "data" / "val", zoo / "label.txt"
    alone = tmp_path / "alone.mindir"
    alone.write_bytes(b"x")
    wrong = tmp_path / "wrong.onnx"
    wrong.write_bytes(b"x")
    air = tmp_path / "network.air"
    air.write_bytes(b"no network")
    for model, environment, part in [
        (
            zoo / "net.onnx",
            {"ASCEND_HOME_PATH": str(tmp_path), "ASCEND_HOME": str(tmp_path)},
            "no CANN toolkit found",
        ),
        (alone, {}, "export the network again with --file_format AIR (on Ascend) or ONNX (anywhere)"),
        (wrong, {}, "is no ONNX file"),
        (air, {}, "atc ended with"),
        (zoo / "net.onnx", {"SOC_VERSION": "Ascend999"}, "atc ended with 2"),
        (zoo / "net.onnx", {"STANDIN_FAIL": "aclInit:1:100001"}, "the application ended with status 1"),
    ]:
        done = run_script(model, data, label, "CPU", **environment)
        assert (done.returncode, part in done.stderr) == (1, True), done.stdout + done.stderr


@pytest.mark.slow
def test_a_user_builds_the_program_and_runs_it(zoo, run_script, tmp_path):
    """The default build, optimised and without sanitizers, from an empty folder; a second run builds nothing."""
    data = tmp_path / "data"
    for file in sorted((zoo / "data" / "val").rglob("*0.*")):
        copy = data / file.relative_to(zoo / "data" / "val")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    count = sum(file.is_file() for file in data.rglob("*"))
    for mode in ("CPU", "DVPP"):
        done = run_script(zoo / "net.onnx", data, zoo / "label.txt", mode, BUILD_DIR=str(tmp_path / "out"))
        assert done.returncode == 0, done.stdout + done.stderr
        accuracy, others = (tmp_path / "acc.log").read_text().splitlines()[:2]
        assert float(re.fullmatch(r"'Accuracy': ([\d.]+)", accuracy)[1]) > 0.85 and others.endswith(f"samples: {count}")
        if mode == "CPU":
            found = scores(tmp_path / "result_Files")
            assert len(found) == count > 9 and largest_difference(zoo / "net.onnx", data, found) <= 1e-3
            program = (tmp_path / "out" / "infer310").stat()
    assert "CMAKE_BUILD_TYPE:STRING=Release" in (tmp_path / "out" / "CMakeCache.txt").read_text()
    assert b"__asan" not in (tmp_path / "out" / "infer310").read_bytes()
    assert (tmp_path / "out" / "infer310").stat().st_mtime_ns == program.st_mtime_ns


def test_mobilenetv2_by_mindspore(zoo, run_script, tmp_path):
    """atc --framework=1, and MindSpore in the card's place: the answers of the ONNX file to 1e-3."""
    data = tmp_path / "data"
    data.mkdir()
    for file in sorted((zoo / "data" / "val" / "7").iterdir())[:4]:
        (data / file.name).write_bytes(file.read_bytes())
    done = run_script(zoo / "air" / "net.air", data, "None", "CPU")
    assert done.returncode == 0 and "atc --framework=1" in done.stderr, done.stdout + done.stderr
    found = scores(tmp_path / "result_Files")
    assert len(found) == 4
    assert largest_difference(zoo / "net.onnx", data, found) <= 1e-3


def test_mobilenetv2_quant_gives_the_answers_of_its_file(zoo, run_script, tmp_path):
    """Integers all the way; the application adds nothing of its own but the rounding of the image's bytes."""
    data = zoo / "data" / "val" / "7"
    done = run_script(zoo / "quant.onnx", data, "None", "CPU")
    assert done.returncode == 0, done.stdout + done.stderr
    found = scores(tmp_path / "result_Files")
    assert len(found) == len(list(data.iterdir()))
    assert largest_difference(zoo / "quant.onnx", data, found) <= 1e-3


def test_segformer_writes_the_pictures_of_inference(zoo, run_script, tmp_path):
    """The class of every pixel as infer.py has it, on at least 99.9 % of the pixels."""
    compare_pictures(zoo, run_script, tmp_path, "seg.onnx", "by_infer")


@pytest.mark.slow
def test_quantised_segformer_writes_the_pictures_of_inference(zoo, run_script, tmp_path):
    arguments = (zoo / "data" / "train", zoo / "pictures", zoo, "quantised")
    done = run_command("-m", "tests.ascend310.zoo_networks", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ", 0 layers in float" in done.stdout
    compare_pictures(zoo, run_script, tmp_path, "seg_quant.onnx", "by_infer_quant")


def compare_pictures(zoo, run_script, tmp_path, model: str, expected_folder: str) -> None:
    """Of the application with those of infer.py."""
    done = run_script(zoo / model, zoo / "pictures" / "images", "None", "CPU", "--", "--label_pictures", "labels")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (tmp_path / "acc.log").exists()
    assert len(list((tmp_path / "result_Files").rglob("*_0.bin"))) == 5
    equal, seen = [], set()
    for file in sorted((tmp_path / "labels").rglob("*.png")):
        name = file.relative_to(tmp_path / "labels").with_suffix("")
        found = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        expected = cv2.imread(str(zoo / expected_folder / f"{name}_gray.png"), cv2.IMREAD_UNCHANGED)
        assert found.shape == expected.shape
        equal.append(found == expected)
        seen |= set(expected.ravel())
    assert len(equal) == 5 and len(seen) > 1
    assert np.concatenate([part.ravel() for part in equal]).mean() >= 0.999


def test_settings_of_the_vendor_are_read(zoo, run_script, toolkit, tmp_path):
    """set_env.sh of an installed toolkit, which reads unset variables and does not end with 0."""
    home = tmp_path / "Ascend" / "ascend-toolkit"
    home.mkdir(parents=True)
    (home / "latest").symlink_to(toolkit)
    (home / "set_env.sh").write_text('export STANDIN_DEVICES=3 OLD="$NOT_SET_ANYWHERE"\nfalse\n')
    arguments = (zoo / "net.onnx", zoo / "data" / "val" / "3", "None", "CPU", "2")
    latest = {"ASCEND_HOME_PATH": str(home / "latest")}
    for known in (latest, {"ASCEND_HOME_PATH": "", "ASCEND_HOME": str(home.parent)}):
        done = run_script(*arguments, **known)
        assert done.returncode == 0, done.stderr
    done = run_script(*arguments, **latest, ASCEND_OPP_PATH="set by the caller")
    assert done.returncode == 1 and "this machine has 1" in done.stdout, done.stderr
