"""Whole jobs on real object storage: inputs come down, two ranks train, results go up; and a machine that is lost."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.needs_mindspore
ms = pytest.importorskip("mindspore")

from src import zoo  # noqa: E402
from src.engine import device  # noqa: E402
from src.engine.io import checkpoint  # noqa: E402
from src.mobilenetv2 import network  # noqa: E402
from tests.conftest import CLASSES, ROOT, default_signals, run_command, write_settings  # noqa: E402
from tests.object_storage import SECRET, Bucket, Folder  # noqa: E402
from tests.scripts.ports import free_port  # noqa: E402
from tests.waiting import wait_until  # noqa: E402

SETTINGS = {
    "__BASE__": str(ROOT / "default_config_cpu.yaml"),
    "image_height": 32,
    "image_width": 32,
    "batch_size": 4,
    "width_mult": 0.25,
    "epoch_size": 1,
    "lr_max": 0.01,
    "lr_end": 0.0,
    "enable_modelarts": True,
    "need_modelarts_dataset_unzip": True,
    "modelarts_dataset_unzip_name": "Pets",
    "checkpoint": "./mobilenetv2/mobilenetv2_trained.ckpt",
    "freeze_layer": "none",
}


@pytest.fixture(scope="module")
def zipped(images) -> bytes:
    """The images as the zip file that a job finds in its store."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for path in sorted(images.rglob("*.jpg")):
            archive.write(path, Path("Pets") / path.relative_to(images))
    return made.getvalue()


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> bytes:
    """A checkpoint to start from."""
    device.setup("CPU")
    net = network.build(len(CLASSES), SETTINGS["width_mult"], seed=5)
    path = tmp_path_factory.mktemp("trained") / "trained.ckpt"
    about = {"model": "mobilenetv2", "width_mult": 0.25, "class_to_index": {name: i for i, name in enumerate(CLASSES)}}
    checkpoint.save(path, checkpoint.arrays_of(net.get_parameters()), about)
    return path.read_bytes()


class Job:
    """The parameters of a job on a bucket, its environment, and its folders on this machine."""

    def __init__(self, scheme: str, bucket: Bucket | Folder, folder: Path):
        self.bucket, self.folder, self.environment = bucket, folder, bucket.environment
        self.cache = folder / "cache"
        settings = write_settings(folder / "job.yaml", SETTINGS)
        self.flags = [
            f"--config_path={settings}",
            f"--data_url={scheme}://{bucket.name}/data/",
            f"--checkpoint_url={scheme}://{bucket.name}/pretrained/",
            f"--train_url={scheme}://{bucket.name}/out/",
            f"--data_path={self.cache}/data",
            f"--dataset_path={self.cache}/data",
            f"--load_path={self.cache}/checkpoint_path",
            f"--output_path={self.cache}/train",
            "--added_by_the_platform=1",
        ]


@pytest.fixture(scope="module", params=["s3", pytest.param("moxing", marks=pytest.mark.slow)])
def job(request, endpoint, zipped, trained, tmp_path_factory) -> Job:
    folder = tmp_path_factory.mktemp("job")
    if request.param == "s3":
        made = Job("s3", Bucket("a-whole-job", endpoint), folder)
    else:
        (folder / "obs").mkdir()
        made = Job("obs", Folder("bucket", folder / "obs"), folder)
    made.bucket.write("data/Pets.zip", zipped)
    made.bucket.write("pretrained/mobilenetv2/mobilenetv2_trained.ckpt", trained)
    return made


@pytest.fixture(scope="module")
def finished(job) -> tuple[Job, str]:
    """A job that two ranks have trained, and what they printed."""
    launch = ["-m", "src.launch", "--device_num", "2", "--master_port", str(free_port()), "--first_log", "0.log"]
    python_path = os.pathsep.join(filter(None, [str(ROOT), job.environment.get("PYTHONPATH")]))
    environment = {**job.environment, "PYTHONPATH": python_path}
    result = run_command(*launch, str(ROOT / "train.py"), *job.flags, cwd=job.folder, **environment)
    logs = "".join(path.read_text() for path in job.folder.rglob("*.log"))
    assert result.returncode == 0, logs + result.stderr
    return job, logs


def test_two_ranks_train_on_what_one_of_them_copied(finished):
    job, logs = finished
    assert logs.count("unpacked 33 of 33 files") == 1
    assert (job.cache / "data/Pets/train/cat/000.jpg").is_file()
    assert "job parameters that this model does not have: --added_by_the_platform" in logs
    assert re.search(r"loaded \d+ arrays from .*checkpoint_path/mobilenetv2/mobilenetv2_trained.ckpt", logs)


def test_all_results_are_in_the_store(finished):
    job, logs = finished
    run = job.cache / "train/checkpoint"
    stored = job.bucket.keys("out/")
    assert {f"out/checkpoint/{name}" for name in ("mobilenetv2-1_3.ckpt", "train.log", "metrics.jsonl")} <= set(stored)
    for key in stored:
        assert job.bucket.read(key) == (run.parent / key[len("out/") :]).read_bytes(), key
    sent = {key[len("out/") :] for key in stored}
    assert sent == {path.relative_to(run.parent).as_posix() for path in run.rglob("*") if path.is_file()} - {
        "checkpoint/.lock"
    }
    assert "results are in" in logs


def test_credentials_are_nowhere(finished):
    job, logs = finished
    assert SECRET not in logs
    for path in job.folder.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


def test_evaluation_and_export_jobs_take_the_result_from_the_store(finished, tmp_path, monkeypatch, capsys):
    """In this process, because compiling costs most of the time."""
    job, _ = finished
    if isinstance(job.bucket, Folder):
        pytest.skip("the same as with the other store")
    for name, value in job.environment.items():
        monkeypatch.setenv(name, value)
    flags = [flag.replace("/out/", "/scores/").replace("/pretrained/", "/out/") for flag in job.flags]
    flags += [f"--output_path={tmp_path}/out", f"--load_path={tmp_path}/load"]
    evaluation = ["--checkpoint=mobilenetv2-1_3.ckpt", "--per_class_csv=classes.csv"]
    assert zoo.run("eval", [*flags, *evaluation]) == 0
    assert "samples: 9 of 9" in capsys.readouterr().out
    assert job.bucket.read("scores/classes.csv").startswith(b"class")
    export = ["--ckpt_file=/cache/checkpoint_path/mobilenetv2-1_3.ckpt", "--file_name=mobilenetv2"]
    assert zoo.run("export", [*flags, *export, "--file_format=MINDIR", "--batch_size_export=1"]) == 0
    assert job.bucket.read("scores/mobilenetv2.mindir") == (tmp_path / "out/mobilenetv2.mindir").read_bytes()


@pytest.mark.slow
def test_a_lost_machine_loses_only_what_was_not_sent_yet(endpoint, zipped, trained, tmp_path):
    """SIGKILL once a checkpoint is in the store, then everything local is gone; the job goes on from the store."""
    job = Job("s3", Bucket("lost", endpoint), tmp_path)
    job.bucket.write("data/Pets.zip", zipped)
    job.bucket.write("pretrained/mobilenetv2/mobilenetv2_trained.ckpt", trained)
    command = [ROOT / "train.py", *job.flags, "--freeze_layer=backbone", "--resume=auto"]
    with subprocess.Popen(
        [sys.executable, *map(str, command), "--epoch_size=100000", "--keep_checkpoint_max=3"],
        cwd=tmp_path,
        env={**os.environ, **job.environment},
        stdout=subprocess.DEVNULL,
        preexec_fn=default_signals,
    ) as process:
        wait_until(
            lambda: any(key.endswith(".ckpt") for key in job.bucket.keys("out/")),
            "a checkpoint in the store",
            process=process,
            pause=0.1,
        )
        process.send_signal(signal.SIGKILL)
    shutil.rmtree(job.cache)
    epochs = [int(found[1]) for key in job.bucket.keys("out/") if (found := re.search(r"head_(\d+)\.ckpt", key))]
    result = run_command(*command, f"--epoch_size={max(epochs) + 1}", cwd=tmp_path, **job.environment)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"resumed from {job.cache}/train/checkpoint/mobilenetv2_head_{max(epochs)}.ckpt" in result.stdout
    assert f"out/checkpoint/mobilenetv2_head_{max(epochs) + 1}.ckpt" in job.bucket.keys("out/")
