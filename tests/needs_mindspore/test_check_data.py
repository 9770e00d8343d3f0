"""tools/check_data.py and train.py agree about which data sets can be trained on."""

import shutil

import cv2
import numpy as np
import pytest

from tests.conftest import ROOT, run_command, write_images, write_settings
from tests.segmentation_data import write_generic

CLASSIFIER = ["--platform", "CPU", "--epoch_size", "1", "--image_height", "32", "--image_width", "32"]
CLASSIFIER += ["--batch_size", "4", "--run_eval", "True", "--cpu_kernels", "off", "--warmup_epochs", "0"]


def add_class_to_val(root):
    shutil.copytree(root / "val" / "cat", root / "val" / "zebra")


def empty_class(root):
    (root / "train" / "empty").mkdir()


def one_class(root):
    for split in ("train", "val"):
        for name in ("dog", "owl"):
            shutil.rmtree(root / split / name)


def no_pictures(root):
    for path in (root / "train").rglob("*.jpg"):
        path.write_bytes(b"no picture")


def fine(root):
    (root / "train/cat/000.jpg").write_bytes(b"")  # which training skips


@pytest.mark.parametrize(
    "change", [add_class_to_val, empty_class, one_class, no_pictures, pytest.param(fine, marks=pytest.mark.slow)]
)
def test_class_folders(tmp_path, change):
    write_images(tmp_path / "data" / "train", 4)
    write_images(tmp_path / "data" / "val", 1, seed=1)
    change(tmp_path / "data")
    flags = [*CLASSIFIER, "--dataset_path", str(tmp_path / "data"), "--save_checkpoint_path", str(tmp_path / "run")]
    trained = run_command("train.py", *flags)
    checked = run_command("tools/check_data.py", str(tmp_path / "data"))
    assert (checked.returncode != 0) == (trained.returncode != 0) == (change is not fine), trained.stderr
    if change is not fine:
        fact = trained.stderr.splitlines()[-1].removeprefix("error: ").partition("(")[0]
        assert f"training would fail: {fact.split(';')[0].strip()}" in checked.stdout.replace("fail: train: ", "fail: ")


def wrong_value(root):
    cv2.imwrite(str(next((root / "masks/train").rglob("*.png"))), np.full((40, 80), 9, np.uint8))


def missing_mask(root):
    next((root / "masks/val").rglob("*.png")).unlink()


@pytest.mark.slow
@pytest.mark.parametrize("change", [wrong_value, missing_mask])
def test_masks(tmp_path, change):
    root = write_generic(tmp_path / "data", {"train": 4, "val": 1})
    change(root)
    settings = {
        "__BASE__": str(ROOT / "configs/segformer/segformer.b0.cpu.yaml"),
        "load_ckpt": False, "data_path": str(root), "class_num": 3, "base_size": [32, 64], "crop_size": [32, 32],
        "batch_size": 2, "epoch_size": 1, "run_eval": True, "cpu_kernels": "off",
        "checkpoint_path": str(tmp_path / "run"),
    }  # fmt: skip
    config = write_settings(tmp_path / "c.yaml", settings)
    trained = run_command("train.py", "--config_path", str(config))
    checked = run_command("tools/check_data.py", str(root))
    assert (trained.returncode, checked.returncode) == (1, 1), trained.stderr
    fact = trained.stderr.splitlines()[-1].removeprefix("error: ")
    assert fact in checked.stdout
