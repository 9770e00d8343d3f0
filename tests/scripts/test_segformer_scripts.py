"""SegFormer's shell scripts: every documented form as a plan, and wrong arguments."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

SCRIPTS = ROOT / "scripts" / "segformer"
CONFIG = "configs/segformer/segformer.b0.512x1024.city.yaml"


@pytest.fixture
def place(tmp_path) -> Path:
    """A working folder with data, checkpoints and a rank table, and a space in its name."""
    folder = tmp_path / "a place"
    (folder / "city scapes").mkdir(parents=True)
    for name in ("b 0.ckpt", "picture.png"):
        (folder / name).touch()
    devices = [{"device_id": str(n), "device_ip": f"10.0.0.{n}", "rank_id": str(n)} for n in range(8)]
    server = {"server_id": "10.1.1.1", "device": devices, "host_nic_ip": "reserve"}
    table = {"version": "1.0", "server_count": "1", "server_list": [server], "status": "completed"}
    (folder / "hccl 8p.json").write_text(json.dumps(table))
    return folder


def bash(script: str, *arguments: str, cwd: Path, **environment: str):
    env = {**os.environ, "PYTHON": sys.executable, "DRY_RUN": "1", "PLATFORM": "Ascend", **environment}
    return subprocess.run(
        ["bash", SCRIPTS / script, *arguments], cwd=cwd, env=env, capture_output=True, text=True, timeout=120
    )


def plan(*arguments: str, cwd: Path, **environment: str) -> list[dict]:
    result = bash(*arguments, cwd=cwd, **environment)
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def flags(row: dict) -> dict[str, str]:
    """The flags of the script that a rank runs."""
    words = row["argv"][2:]
    return dict(zip(words[::2], words[1::2]))


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ((), {}),
        (("city scapes",), {"--data_path": "city scapes"}),
        (("city scapes", "b 0.ckpt"), {"--data_path": "city scapes", "--pretrained_ckpt_path": "b 0.ckpt"}),
        (
            ("city scapes", "b 0.ckpt", "False"),
            {"--data_path": "city scapes", "--pretrained_ckpt_path": "b 0.ckpt", "--run_eval": "False"},
        ),
    ],
)
def test_training_forms(place, more, expected):
    expected = {"--config_path": str(ROOT / CONFIG), "--platform": "Ascend", **expected}
    (row,) = plan("run_standalone_train.sh", "3", CONFIG, *more, cwd=place)
    assert flags(row) == expected
    assert (row["engine"], row["env"]["DEVICE_ID"]) == ("single", "3")
    assert row["log"] == str(place / "run_standalone_train_device3" / "train.log")
    for script in ("run_distribute_train.sh", "run_standalone_train.sh"):  # the seed prints the second name too
        rows = plan(script, "8", "hccl 8p.json", CONFIG, *more, cwd=place)
        assert [row["env"]["DEVICE_ID"] for row in rows] == [str(n) for n in range(8)]
        assert [row["env"]["RANK_ID"] for row in rows] == [str(n) for n in range(8)]
        for number, row in enumerate(rows):
            assert row["env"]["RANK_TABLE_FILE"] == str(place / "hccl 8p.json")
            assert flags(row) == {**expected, "--batch_size": "16", "--run_distribute": "True"}
            assert row["log"] == str(place / f"run_distribute_train_device{number}" / "train.log")


def test_two_ranks_on_cpu_with_flags_of_train(place):
    rows = plan(
        "run_distribute_train.sh", "2", "None", CONFIG, "--", "--epoch_size", "1",
        cwd=place, PLATFORM="CPU", BATCH_SIZE="4",
    )  # fmt: skip
    assert [row["engine"] for row in rows] == ["msrun", "msrun"]
    assert flags(rows[1])["--batch_size"] == "4" and flags(rows[1])["--epoch_size"] == "1"


def test_evaluation_and_inference(place):
    (row,) = plan("run_eval.sh", "0", CONFIG, "b 0.ckpt", "city scapes", cwd=place, NODES="2", ENGINE="msrun")
    assert row["argv"][1] == str(ROOT / "eval.py") and row["engine"] == "single"
    expected = {"--config_path": str(ROOT / CONFIG), "--platform": "Ascend"}
    expected |= {"--eval_ckpt_path": "b 0.ckpt", "--data_path": "city scapes"}
    assert flags(row) == expected
    assert row["log"] == str(place / "run_eval_device0" / "eval.log")
    for data in ("city scapes", "picture.png"):
        (row,) = plan("run_infer.sh", "1", CONFIG, "b 0.ckpt", data, cwd=place)
        assert flags(row)["--data_path"] == data and flags(row)["--infer_output_path"] == "infer_result"
        assert row["log"] == str(place / "run_infer_device1" / "infer.log")
    (row,) = plan("run_infer.sh", "1", CONFIG, "b 0.ckpt", "picture.png", "my out", cwd=place)
    assert flags(row)["--infer_output_path"] == "my out"


@pytest.mark.parametrize("given", ["/segformer/config/{}", "config/{}", "{}"])
def test_the_seeds_path_of_a_configuration_and_its_bare_name(place, given):
    name = CONFIG.rpartition("/")[2]
    (row,) = plan("run_standalone_train.sh", "3", given.format(name), cwd=place)
    assert flags(row)["--config_path"] == str(ROOT / CONFIG)
    (place / name).touch()
    if given == "{}":
        (row,) = plan("run_standalone_train.sh", "3", name, cwd=place)
        assert flags(row)["--config_path"] == name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run_standalone_train.sh",), "0 arguments"),
        (("run_standalone_train.sh", "0", "no.yaml"), "CONFIG_PATH 'no.yaml' is not a file"),
        (("run_standalone_train.sh", "0", "/me/segformer.b0.cpu.yaml"), "'/me/segformer.b0.cpu.yaml' is not a file"),
        (("run_standalone_train.sh", "0", "/me/config/*.yaml"), "'/me/config/*.yaml' is not a file"),
        (("run_standalone_train.sh", "x", CONFIG), "DEVICE_ID is 'x'"),
        (("run_standalone_train.sh", "0", CONFIG, "nowhere"), "DATASET_PATH 'nowhere' is not a folder"),
        (("run_standalone_train.sh", "0", CONFIG, "city scapes", "no.ckpt"), "PRETRAINED_CKPT_PATH 'no.ckpt'"),
        (("run_standalone_train.sh", "0", CONFIG, "city scapes", "b 0.ckpt", "maybe"), "RUN_EVAL is 'maybe'"),
        (("run_distribute_train.sh", "8", "no.json", CONFIG), "no.json"),
        (("run_distribute_train.sh", "4", "hccl 8p.json", CONFIG), "DEVICE_NUM is 4"),
        (("run_eval.sh", "0", CONFIG, "b 0.ckpt"), "3 arguments"),
        (("run_infer.sh", "0", CONFIG, "b 0.ckpt", "nowhere"), "DATASET_PATH 'nowhere' does not exist"),
    ],
)
def test_wrong_arguments_start_nothing(place, arguments, message):
    before = sorted(place.rglob("*"))
    result = bash(*arguments, cwd=place, DRY_RUN="0")
    assert result.returncode == 2
    assert message in result.stderr and "Usage: bash run_" in result.stderr
    assert result.stdout == "" and sorted(place.rglob("*")) == before


def test_a_newer_server_in_the_rank_table(place):
    devices = [{"device_id": str(n), "device_ip": f"10.0.0.{n}", "rank_id": str(n)} for n in range(16)]
    table = {"server_count": "1", "server_list": [{"server_id": "a", "device": devices}], "status": "completed"}
    (place / "hccl_16p.json").write_text(json.dumps(table))
    words = ("run_distribute_train.sh", "16", "hccl_16p.json", CONFIG)
    assert len(plan(*words, cwd=place, ANY_TOPOLOGY="1")) == 16
    assert bash(*words, cwd=place).returncode == 2
