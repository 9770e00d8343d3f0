"""The scripts of MobileNetV2-quant: what they would run, for the seed's usage lines, and what they refuse."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from src.launch import rank_table
from tests.conftest import ROOT

SCRIPTS = ROOT / "scripts" / "mobilenetv2_quant"


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "x.ckpt").write_text("")
    return tmp_path


def planned(script: str, *words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    settings = {"PATH": "/usr/bin:/bin", "HOME": str(cwd), "PYTHON": sys.executable, "DRY_RUN": "1", **environment}
    return subprocess.run(
        ["bash", str(SCRIPTS / script), *words], cwd=cwd, env=settings, capture_output=True, text=True, timeout=300
    )


def rows_of(result: subprocess.CompletedProcess) -> list[dict]:
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def flag(row: dict, name: str) -> str:
    return row["argv"][row["argv"].index(f"--{name}") + 1]


def table_of(folder: Path, devices: tuple[int, ...]) -> str:
    server = rank_table.Server(
        "10.0.0.1",
        tuple(rank_table.Device(device, f"192.1.0.{device}", rank) for rank, device in enumerate(devices)),
    )
    text = rank_table.as_json(rank_table.RankTable((server,), "1.0", "completed", 1))
    (folder / "hccl.json").write_text(text)
    return "hccl.json"


def test_ascend_takes_every_card_of_the_rank_table(folder):
    result = planned("run_train.sh", "Ascend", table_of(folder, (4, 5, 6, 7)), "data", "x.ckpt", cwd=folder)
    rows = rows_of(result)
    assert [row["log"] for row in rows] == [str(folder / f"train/device{card}/train.log") for card in (4, 5, 6, 7)]
    assert {flag(row, "config_path") for row in rows} == {str(ROOT / "configs/mobilenetv2_quant/ascend.yaml")}
    assert {flag(row, "save_checkpoint_path") for row in rows} == {"train/device0/checkpoint"}
    assert {flag(row, "pretrain_ckpt") for row in rows} == {"x.ckpt"}


def test_a_newer_server_in_the_rank_table(folder):
    words = ("run_train.sh", "Ascend", table_of(folder, (3, 4)), "data")
    assert len(rows_of(planned(*words, cwd=folder, ANY_TOPOLOGY="1"))) == 2
    assert planned(*words, cwd=folder).returncode == 2


def test_gpu_takes_the_named_cards(folder):
    rows = rows_of(planned("run_train.sh", "GPU", "1,2", "data", cwd=folder))
    assert [row["log"] for row in rows] == [str(folder / "train" / name) for name in ("train.log", "train_1.log")]
    assert rows[0]["env"]["CUDA_VISIBLE_DEVICES"] == "1,2"
    assert flag(rows[0], "save_checkpoint_path") == "train/checkpointckpt_0"


def test_one_card_and_cpu(folder):
    (row,) = rows_of(planned("run_train.sh", "Ascend", "None", "data", cwd=folder, DEVICE_ID="3"))
    assert (row["log"], row["env"]["DEVICE_ID"]) == (str(folder / "train/device3/train.log"), "3")
    assert flag(row, "save_checkpoint_path") == "train/device3/checkpoint"
    (row,) = rows_of(planned("run_train.sh", "CPU", "data", "--", "--epoch_size", "1", cwd=folder))
    assert row["log"] == str(folder / "train/train.log")
    assert flag(row, "epoch_size") == "1"


@pytest.mark.parametrize("script", ["run_infer.sh", "run_infer_quant.sh"])
def test_evaluation_under_both_names(folder, script):
    (row,) = rows_of(planned(script, "Ascend", "data", "x.ckpt", cwd=folder))
    assert row["log"] == str(folder / "val/infer.log")
    assert flag(row, "config_path") == str(ROOT / "configs/mobilenetv2_quant/ascend.yaml")
    assert (flag(row, "dataset_path"), flag(row, "pretrain_ckpt")) == ("data", "x.ckpt")


@pytest.mark.parametrize(
    ("script", "words", "said"),
    [
        ("run_train.sh", [], "platform is ''"),
        ("run_train.sh", ["TPU", "data"], "platform is 'TPU'"),
        ("run_train.sh", ["Ascend"], "no RANK_TABLE_FILE"),
        ("run_train.sh", ["Ascend", "none.json", "data"], "RANK_TABLE_FILE 'none.json' is not a file"),
        ("run_train.sh", ["GPU", "a,b", "data"], "DEVICE_ID_LIST is 'a,b'"),
        ("run_train.sh", ["GPU", "0"], "0 arguments where DATASET_PATH"),
        ("run_train.sh", ["CPU", "nowhere"], "DATASET_PATH 'nowhere' is not a folder"),
        ("run_train.sh", ["CPU", "data", "no.ckpt"], "PRETRAINED_CKPT_PATH 'no.ckpt' is not a file"),
        ("run_infer.sh", ["CPU", "data"], "2 arguments; 3 are needed"),
        ("run_infer_quant.sh", ["CPU", "data", "no.ckpt"], "CHECKPOINT_PATH 'no.ckpt' is not a file"),
    ],
)
def test_wrong_arguments_show_the_usage(folder, script, words, said):
    result = planned(script, *words, cwd=folder)
    assert result.returncode == 2
    assert said in result.stderr and "Usage: bash run_" in result.stderr
    assert not result.stdout
