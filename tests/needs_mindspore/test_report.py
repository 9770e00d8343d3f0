"""tools/report.py on real runs: what it says about pictures is what eval.py says."""

import json
import re

import pytest

from tests.conftest import ROOT, run_command, write_images, write_settings
from tests.segmentation_data import write_generic

SMALL = {
    "image_height": 32,
    "image_width": 32,
    "batch_size": 4,
    "epoch_size": 1,
    "cpu_kernels": "off",
    "run_eval": True,
}


def classifier(tmp_path, model):
    write_images(tmp_path / "data" / "train", 4)
    write_images(tmp_path / "data" / "val", 3, seed=1)
    (tmp_path / "data/val/cat/bad.jpg").write_bytes(b"no picture")
    base = {"mobilenetv2": "default_config_cpu.yaml", "mobilenetv2_quant": "configs/mobilenetv2_quant/cpu.yaml"}[model]
    settings = {
        "__BASE__": str(ROOT / base), **SMALL, "cpu_kernels": "off", "dataset_path": str(tmp_path / "data"),
        "warmup_epochs": 0,
    }  # fmt: skip
    settings["save_checkpoint_path"] = str(tmp_path / "run")
    return write_settings(tmp_path / "c.yaml", settings), tmp_path / "data" / "val", "dataset_path", "pretrain_ckpt"


def segmenter(tmp_path):
    root = write_generic(tmp_path / "data", {"train": 4, "val": 2})
    settings = {
        "__BASE__": str(ROOT / "configs/segformer/segformer.b0.cpu.yaml"),
        "load_ckpt": False, "data_path": str(root), "class_num": 3, "base_size": [32, 64], "crop_size": [32, 32],
        "batch_size": 2, "epoch_size": 1, "run_eval": True, "cpu_kernels": "off", "eval_start_epoch": 1,
        "checkpoint_path": str(tmp_path / "run"),
    }  # fmt: skip
    return write_settings(tmp_path / "c.yaml", settings), root, "data_path", "eval_ckpt_path"


def value_of(text: str, measure: str) -> float:
    return float(re.search(rf'<td>{measure}</td><td class="number" data-value="([^"]+)"', text)[1])


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mobilenetv2", "mobilenetv2_quant", "segformer"])
def test_it_counts_as_evaluation_does(tmp_path, model):
    config, val, data_key, checkpoint_key = segmenter(tmp_path) if model == "segformer" else classifier(tmp_path, model)
    trained = run_command("train.py", "--config_path", str(config))
    assert trained.returncode == 0, trained.stderr
    reported = run_command("tools/report.py", str(tmp_path / "run"), "--data_path", str(val))
    assert reported.returncode == 0, reported.stderr
    text = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    best = next((tmp_path / "run").glob("*best.ckpt"))
    flags = [
        "--config_path",
        str(tmp_path / "run/config.yaml"),
        f"--{data_key}",
        str(val),
        f"--{checkpoint_key}",
        str(best),
    ]
    if model == "segformer":
        found = run_command("eval.py", *flags, "--eval_json", str(tmp_path / "e.json"))
        assert found.returncode == 0, found.stderr
        assert value_of(text, "mIoU") == pytest.approx(json.loads((tmp_path / "e.json").read_text())["miou"], abs=1e-12)
        assert value_of(text, "pictures") == 2
    else:
        found = run_command("eval.py", *flags)
        assert found.returncode == 0, found.stderr
        assert value_of(text, "top-1") == float(re.search(r"'acc': ([\d.]+)", found.stdout)[1])
        assert value_of(text, "pictures") == 9
        assert ("Noise of quantisation" in text) == (model == "mobilenetv2_quant")
    assert "data:image/jpeg;base64," in text


@pytest.mark.parametrize("model", ["mobilenetv2", pytest.param("segformer", marks=pytest.mark.slow)])
def test_training_on_an_archive_ends_with_the_weights_of_the_folder(tmp_path, model):
    config, *_, data_key, _ = segmenter(tmp_path) if model == "segformer" else classifier(tmp_path, model)
    packed = run_command("tools/pack_data.py", str(tmp_path / "data"), str(tmp_path / "data.tar"))
    assert packed.returncode == 0, packed.stderr
    weights = []
    for number, data in enumerate(("data", "data.tar")):
        folder = tmp_path / f"run{number}"
        flags = [f"--{data_key}", str(tmp_path / data), "--save_checkpoint_path", str(folder)]
        trained = run_command("train.py", "--config_path", str(config), *flags)
        assert trained.returncode == 0, trained.stderr
        weights.append(next(folder.glob("*best.ckpt")).read_bytes())
    assert weights[0] == weights[1]
    assert list((tmp_path / "run1" / "archives").glob("*.npz"))
