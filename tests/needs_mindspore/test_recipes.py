"""Each recipe from the command line on generated images: files written, lines printed, resume, signals, bad input.

Runs share one seed and one tiny configuration; a training process costs about fifteen seconds, mostly compilation.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.needs_mindspore
ms = pytest.importorskip("mindspore")

from src.engine import device  # noqa: E402
from src.engine.export import onnx_model  # noqa: E402
from src.engine.io import checkpoint  # noqa: E402
from src.engine.steps import step  # noqa: E402
from src.mobilenetv2 import network  # noqa: E402
from src.mobilenetv2.loss import cross_entropy  # noqa: E402
from tests.conftest import ROOT, run_command, write_images, write_settings  # noqa: E402
from tests.waiting import wait_until  # noqa: E402

TINY = {
    "__BASE__": str(ROOT / "default_config_cpu.yaml"),
    "image_height": 32,
    "image_width": 32,
    "batch_size": 6,
    "width_mult": 0.25,
    "epoch_size": 3,
    "lr_max": 0.02,
    "lr_end": 0.0,
    "dropout": 0.2,
    "ema_decay": 0.9,
    "mixup_alpha": 0.2,
    "save_checkpoint_steps": 1,
    "save_checkpoint_path": "run",
}
STEP_LINE = re.compile(
    r"epoch: \[ {2}\d/ {2}\d\], step:\[ {4}3/ {4}4\], loss:\[\d\.\d{3}/\d\.\d{3}\], time:\[[\d.]+\], lr:\[0\.0\d\d\]"
)
EPOCH_LINE = re.compile(r"epoch time: [\d.]+, per step time: [\d.]+, avg loss: \d\.\d{3}")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """A configuration file for 24 images in 3 classes: 4 steps an epoch."""
    return write_settings(tmp_path_factory.mktemp("config") / "tiny.yaml", TINY)


def train(tiny: Path, images: Path, cwd: Path, *flags: str, **options):
    return run_command(
        ROOT / "train.py", "--config_path", tiny, "--dataset_path", images / "train", *flags, cwd=cwd, **options
    )


@pytest.fixture(scope="module")
def undisturbed(tiny, images, tmp_path_factory) -> tuple[Path, str]:
    """The run folder and output of a training that nothing interrupts, with evaluation."""
    cwd = tmp_path_factory.mktemp("undisturbed")
    result = train(tiny, images, cwd, "--run_eval", "True")
    assert result.returncode == 0, result.stderr
    return cwd / "run", result.stdout


def assert_same_state(one: Path, other: Path) -> None:
    """Every array of two checkpoints is equal to the last bit."""
    first, second = checkpoint.read(one), checkpoint.read(other)
    assert first.arrays.keys() == second.arrays.keys()
    for name, array in first.arrays.items():
        assert (array == second.arrays[name]).all(), name
    assert first.meta["position"] == second.meta["position"]


class TestTrain:
    def test_lines_are_the_documented_ones(self, undisturbed):
        run, output = undisturbed
        lines = output.splitlines()
        steps = [line for line in lines if line.startswith("epoch: ")]
        epochs = [line for line in lines if line.startswith("epoch time: ")]
        assert len(steps) == len(epochs) == 3
        assert all(STEP_LINE.fullmatch(line) for line in steps)
        for line in epochs:
            head, evaluation = line.split(", eval_acc: ")
            assert EPOCH_LINE.fullmatch(head)
            assert re.fullmatch(r"[01]\.\d{6}, best_acc: [01]\.\d{6}", evaluation)
        logged = (run / "train.log").read_text().splitlines()
        assert [line for line in logged if line.startswith("epoch")] == [s for pair in zip(steps, epochs) for s in pair]

    def test_files_of_a_run(self, undisturbed):
        run, _ = undisturbed
        names = {path.name for path in run.iterdir()}
        assert {
            "mobilenetv2-1_4.ckpt",
            "mobilenetv2-2_4.ckpt",
            "mobilenetv2-3_4.ckpt",
            "mobilenetv2-best.ckpt",
        } <= names
        assert {"config.yaml", "versions.json", "train.log", "metrics.jsonl", "events", "curves.png"} <= names
        assert json.loads((run / "versions.json").read_text())["mindspore"] == ms.__version__
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert [row["at"] for row in rows if row["kind"] == "train"] == list(range(1, 13))
        assert all(row["samples"] == 9 for row in rows if row["kind"] == "eval")
        assert any(path.name.startswith("events.out.tfevents") for path in (run / "events").iterdir())

    def test_checkpoint_knows_its_classes_and_position(self, undisturbed):
        meta = checkpoint.read(undisturbed[0] / "mobilenetv2-2_4.ckpt").meta
        assert meta["class_to_index"] == {"cat": 0, "dog": 1, "owl": 2}
        assert (meta["position"]["epoch"], meta["position"]["step"]) == (2, 0)
        assert meta["epoch_of"] == {"samples": 24, "images_per_step": 6}

    @pytest.mark.slow
    def test_same_seed_same_losses_even_from_the_saved_configuration(self, undisturbed, images, tmp_path):
        again = train(undisturbed[0] / "config.yaml", images, tmp_path, "--num_workers", "1")
        assert again.returncode == 0, again.stderr
        assert_same_state(undisturbed[0] / "mobilenetv2-3_4.ckpt", tmp_path / "run" / "mobilenetv2-3_4.ckpt")

    @pytest.mark.slow
    def test_a_new_run_moves_the_old_files_aside(self, undisturbed, tiny, images, tmp_path):
        shutil.copytree(undisturbed[0], tmp_path / "run")
        result = train(tiny, images, tmp_path, "--epoch_size", "1")
        assert "files of an earlier run moved to run/previous/1" in result.stdout
        assert (tmp_path / "run" / "previous" / "1" / "mobilenetv2-3_4.ckpt").is_file()
        assert sorted(path.name for path in (tmp_path / "run").glob("*.ckpt")) == ["mobilenetv2-1_4.ckpt"]


class TestResume:
    @pytest.mark.slow
    def test_killed_at_any_moment_and_resumed_gives_the_same_weights(self, undisturbed, tiny, images, tmp_path):
        """SIGKILL three times, each a little later than the first checkpoint that is new."""
        command = [sys.executable, ROOT / "train.py", "--config_path", tiny, "--dataset_path", images / "train"]
        command += ["--run_eval", "True", "--resume", "auto"]
        rng = np.random.default_rng()
        for _ in range(3):
            before = set(tmp_path.glob("run/*.ckpt"))
            with subprocess.Popen(
                command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            ) as process:
                wait_until(
                    lambda seen=before, run=process: set(tmp_path.glob("run/*.ckpt")) - seen or run.poll() is not None,
                    "a checkpoint",
                    process=process,
                )
                time.sleep(rng.uniform(0, 0.3))
                process.kill()
        last = run_command(*command[1:], cwd=tmp_path)
        assert last.returncode == 0, last.stderr
        assert "resumed from run/mobilenetv2-" in last.stdout
        assert_same_state(undisturbed[0] / "mobilenetv2-3_4.ckpt", tmp_path / "run" / "mobilenetv2-3_4.ckpt")
        assert not list(tmp_path.glob("run/.writing-*")), "a resumed run clears what a killed one left"

    def test_sigterm_saves_and_resumes(self, undisturbed, tiny, images, tmp_path):
        command = [sys.executable, ROOT / "train.py", "--config_path", tiny, "--dataset_path", images / "train"]
        command += ["--run_eval", "True", "--save_checkpoint_steps", "0", "--save_checkpoint_epochs", "3"]
        with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
            metrics = tmp_path / "run" / "metrics.jsonl"
            wait_until(lambda: metrics.is_file() and metrics.stat().st_size, "a step", process=process)
            process.send_signal(signal.SIGTERM)
            output = process.communicate(timeout=900)[0]
        assert process.returncode == 128 + signal.SIGTERM
        assert "stopped by SIGTERM; the state is saved" in output
        assert len(list(tmp_path.glob("run/mobilenetv2-*_*.ckpt"))) == 1
        last = train(tiny, images, tmp_path, "--run_eval", "True", "--resume", "auto")
        assert last.returncode == 0, last.stderr
        assert_same_state(undisturbed[0] / "mobilenetv2-3_4.ckpt", tmp_path / "run" / "mobilenetv2-3_4.ckpt")

    @pytest.mark.slow
    @pytest.mark.parametrize(("optimizer", "other"), [("momentum", "adamw"), ("adamw", "momentum")])
    def test_balanced_epochs_and_steps_of_parts_resume_bit_for_bit(self, tiny, images, tmp_path, optimizer, other):
        flags = ("--sampler", "balanced", "--class_weights", "balanced", "--focal_gamma", "1.5", "--epoch_size", "2")
        flags += ("--batch_size", "3", "--accumulate", "2", "--optimizer", optimizer)
        assert train(tiny, images, tmp_path, *flags).returncode == 0
        shutil.copytree(tmp_path / "run", tmp_path / "again")
        resumed = ("--save_checkpoint_path", "again", "--resume", "again/mobilenetv2-1_4.ckpt")
        result = train(tiny, images, tmp_path, *flags, *resumed)
        assert result.returncode == 0, result.stderr
        assert_same_state(tmp_path / "run" / "mobilenetv2-2_4.ckpt", tmp_path / "again" / "mobilenetv2-2_4.ckpt")
        result = train(tiny, images, tmp_path, *flags, *resumed, "--optimizer", other)
        assert result.returncode == 1
        assert f"made with another optimizer ({optimizer}); give the same or start a new run" in result.stderr

    def test_finished_run_has_nothing_left_to_do(self, undisturbed, tiny, images, tmp_path):
        shutil.copytree(undisturbed[0], tmp_path / "run")
        result = train(tiny, images, tmp_path, "--resume", "auto")
        assert result.returncode == 0
        assert "nothing left to do: 3 of 3 epochs are done" in result.stdout

    @pytest.mark.slow
    def test_going_back_to_an_older_checkpoint_moves_the_newer_ones_aside(self, undisturbed, tiny, images, tmp_path):
        shutil.copytree(undisturbed[0], tmp_path / "run")
        result = train(tiny, images, tmp_path, "--run_eval", "True", "--resume", "run/mobilenetv2-2_4.ckpt")
        assert result.returncode == 0, result.stderr
        assert (tmp_path / "run" / "previous" / "1" / "mobilenetv2-3_4.ckpt").is_file()
        assert_same_state(undisturbed[0] / "mobilenetv2-3_4.ckpt", tmp_path / "run" / "mobilenetv2-3_4.ckpt")

    @pytest.mark.slow
    def test_damaged_newest_checkpoint_is_passed_over(self, undisturbed, tiny, images, tmp_path):
        shutil.copytree(undisturbed[0], tmp_path / "run")
        damaged = tmp_path / "run" / "mobilenetv2-3_4.ckpt"
        damaged.write_bytes(damaged.read_bytes()[:-5000])
        result = train(tiny, images, tmp_path, "--run_eval", "True", "--resume", "auto")
        assert "mobilenetv2-3_4.ckpt is damaged" in result.stdout
        assert "resumed from run/mobilenetv2-2_4.ckpt" in result.stdout
        assert_same_state(undisturbed[0] / "mobilenetv2-3_4.ckpt", damaged)

    def test_wrong_files_are_refused(self, undisturbed, tiny, images, tmp_path):
        best = undisturbed[0] / "mobilenetv2-best.ckpt"
        result = train(tiny, images, tmp_path, "--resume", best)
        assert result.returncode == 1
        assert "holds weights only" in result.stderr
        result = train(tiny, images, tmp_path, "--resume", undisturbed[0] / "mobilenetv2-1_4.ckpt", "--seed", "2")
        assert result.returncode == 1
        assert "made with another seed" in result.stderr

    def test_middle_of_an_epoch_wants_the_same_data(self, undisturbed, tiny, images, tmp_path):
        stored = checkpoint.read(undisturbed[0] / "mobilenetv2-1_4.ckpt")
        position = {**stored.meta["position"], "epoch": 0, "step": 2}
        checkpoint.save(tmp_path / "m.ckpt", stored.arrays, {**stored.meta, "position": position})
        result = train(tiny, images, tmp_path, "--resume", "m.ckpt", "--batch_size", "5")
        assert result.returncode == 1
        assert "is from the middle of an epoch with {'samples': 24, 'images_per_step': 6}" in result.stderr


class TestFineTune:
    def test_head_only_leaves_the_backbone_as_it_is(self, undisturbed, tiny, images, tmp_path):
        flags = ["--pretrain_ckpt", undisturbed[0] / "mobilenetv2-best.ckpt", "--freeze_layer", "backbone"]
        first = train(tiny, images, tmp_path, *flags, "--mixup_alpha", "0", "--run_eval", "True")
        assert first.returncode == 0, first.stderr
        assert first.stdout.count("features of 24 images written") == 1
        whole = checkpoint.read(tmp_path / "run" / "mobilenetv2_head_3.ckpt")
        start = checkpoint.read(undisturbed[0] / "mobilenetv2-best.ckpt")
        for name, array in start.arrays.items():
            same = (whole.arrays[name] == array).all()
            assert same == name.startswith("backbone."), name

    @pytest.mark.slow
    def test_cached_features_are_never_stale(self, undisturbed, tiny, images, tmp_path):
        data = tmp_path / "data"
        shutil.copytree(images, data)
        flags = ["--pretrain_ckpt", undisturbed[0] / "mobilenetv2-best.ckpt", "--freeze_layer", "backbone"]
        flags += ["--mixup_alpha", "0", "--run_eval", "True"]
        first = train(tiny, data, tmp_path, *flags, "--epoch_size", "1")
        assert first.stdout.count("features of 24 images written") == 1
        again = train(tiny, data, tmp_path, *flags, "--epoch_size", "1")
        assert "features of 24 images from" in again.stdout
        assert "written" not in again.stdout
        cache = next(tmp_path.glob("run/features/*.npz"))
        for path in tmp_path.glob("run/features/*.npz"):
            path.write_bytes(path.read_bytes()[:300])
        damaged = train(tiny, data, tmp_path, *flags, "--epoch_size", "1")
        assert f"run/features/{cache.name} is damaged" in damaged.stdout
        assert damaged.stdout.count("features of 24 images written") == 1
        changed = data / "train" / "cat" / "000.jpg"
        changed.write_bytes((data / "train" / "dog" / "000.jpg").read_bytes())
        third = train(tiny, data, tmp_path, *flags, "--epoch_size", "1")
        assert third.stdout.count("features of 24 images written") == 1
        flags[1] = undisturbed[0] / "mobilenetv2-3_4.ckpt"  # not the best one, which is an earlier epoch's
        fourth = train(tiny, data, tmp_path, *flags, "--epoch_size", "1")
        assert fourth.stdout.count("features of 24 images written") == 1

    @pytest.mark.slow
    def test_starting_from_the_best_weights_in_the_same_folder_works_twice(self, undisturbed, tiny, images, tmp_path):
        shutil.copytree(undisturbed[0], tmp_path / "run")
        flags = ["--pretrain_ckpt", "run/mobilenetv2-best.ckpt", "--freeze_layer", "backbone", "--mixup_alpha", "0"]
        for number in (1, 2):
            result = train(tiny, images, tmp_path, *flags, "--epoch_size", "1")
            assert result.returncode == 0, result.stderr
            assert f"moved to run/previous/{number}" in result.stdout
        assert (tmp_path / "run" / "mobilenetv2-best.ckpt").is_file()
        assert (tmp_path / "run" / "previous" / "1" / "mobilenetv2-best.ckpt").is_file()

    def test_whole_network_with_a_new_head_for_other_classes(self, undisturbed, tiny, tmp_path):
        write_images(tmp_path / "train", 6, classes=("ant", "bee"))
        flags = ["--pretrain_ckpt", undisturbed[0] / "mobilenetv2-best.ckpt", "--freeze_layer", "none"]
        refused = train(tiny, tmp_path, tmp_path, *flags)
        assert refused.returncode == 1
        assert "was trained on 3 classes and the data has 2; use --filter_head True" in refused.stderr
        assert not (tmp_path / "run").exists()
        result = train(tiny, tmp_path, tmp_path, *flags, "--filter_head", "True", "--epoch_size", "1")
        assert result.returncode == 0, result.stderr
        assert "2 of the head start anew" in result.stdout


class TestEvalAndExport:
    @pytest.fixture(scope="class")
    def best(self, undisturbed) -> Path:
        return undisturbed[0] / "mobilenetv2-best.ckpt"

    def evaluate(self, tiny, images, cwd, model, *flags):
        return run_command(
            ROOT / "eval.py", "--config_path", tiny, "--dataset_path", images / "val", "--pretrain_ckpt", model, *flags,
            cwd=cwd,
        )  # fmt: skip

    def test_eval_counts_every_sample_and_writes_what_is_asked(self, best, tiny, images, tmp_path):
        data = tmp_path / "data"
        shutil.copytree(images, data)
        (data / "val" / "owl" / "zz.jpg").write_bytes(b"broken")
        (data / "val" / "owl" / "notes.txt").write_text("x")
        flags = ["--per_class_csv", "classes.csv", "--confusion_matrix", "confusion.png"]
        result = self.evaluate(tiny, data, tmp_path, best, *flags)
        assert result.returncode == 0, result.stderr
        accuracy = float(
            re.search(rf"^result: {{'acc': ([\d.]+)}} ckpt={re.escape(str(best))}$", result.stdout, re.M)[1]
        )
        assert 0 <= accuracy <= 1
        assert "samples: 9 of 10" in result.stdout
        assert "skipped owl/zz.jpg: not an image" in result.stdout
        assert "skipped owl/notes.txt: not an image file" in result.stdout
        assert "2 bad files skipped" in result.stdout
        rows = (tmp_path / "classes.csv").read_text().splitlines()
        assert [row.split(",")[:2] for row in rows[1:]] == [["cat", "3"], ["dog", "3"], ["owl", "3"]]
        assert (tmp_path / "confusion.png").read_bytes().startswith(b"\x89PNG")
        strict = self.evaluate(tiny, data, tmp_path, best, "--on_bad_image", "error")
        assert strict.returncode == 1
        assert "is no usable image" in strict.stderr

    @pytest.mark.parametrize("dynamic", ["True", pytest.param("False", marks=pytest.mark.slow)])
    def test_onnx_has_the_networks_answers(self, best, tiny, images, tmp_path, dynamic):
        flags = ["--ckpt_file", best, "--file_format", "ONNX", "--file_name", "net", "--dynamic_batch", dynamic]
        exported = run_command(ROOT / "export.py", "--config_path", tiny, *flags, cwd=tmp_path)
        assert exported.returncode == 0, exported.stderr
        found = re.findall(r"largest difference to the network on (\w+) input: ([\d.e+-]+)", exported.stdout)
        assert [kind for kind, _ in found] == ["random", "real"]
        assert all(float(difference) < 1e-5 for _, difference in found)
        network = self.evaluate(tiny, images, tmp_path, best)
        onnx = self.evaluate(tiny, images, tmp_path, "net.onnx", "--eval_backend", "onnx")
        assert onnx.returncode == 0, onnx.stderr
        assert onnx.stdout.split("}")[0] == network.stdout.split("result: ")[1].join(["result: ", ""]).split("}")[0]

    def test_infer_names_what_eval_counts(self, best, tiny, images, tmp_path):
        flags = ["--config_path", tiny, "--pretrain_ckpt", best, "--data_path", images / "val", "--top_k", "2"]
        result = run_command(ROOT / "infer.py", *flags, cwd=tmp_path)
        assert (result.returncode, result.stderr) == (0, ""), result.stderr
        accuracy = float(re.search(r"'acc': ([\d.]+)", self.evaluate(tiny, images, tmp_path, best).stdout)[1])
        assert f"top-1: {accuracy:.6f}, right: {round(9 * accuracy)} of 9 images" in result.stdout
        rows = (tmp_path / "infer_result" / "predictions.csv").read_text().splitlines()
        assert rows[0] == "file,truth,class_1,probability_1,class_2,probability_2" and len(rows) == 10
        assert sum(row.split(",")[1] == row.split(",")[2] for row in rows[1:]) == round(9 * accuracy)
        assert (tmp_path / "infer_result" / "contact_sheet.png").read_bytes().startswith(b"\x89PNG")

    def test_mindir_is_read_back_and_carries_the_classes(self, best, tiny, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "net.mindir").write_text("an older file, which is replaced")
        flags = ["--ckpt_file", best, "--file_name", "out/net"]
        result = run_command(ROOT / "export.py", "--config_path", tiny, *flags, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        assert "largest difference to the network on real input: 0" in result.stdout
        about = json.loads((tmp_path / "out" / "net.mindir.json").read_text())
        assert about["class_to_index"] == {"cat": 0, "dog": 1, "owl": 2}
        assert result.stdout.count("exported out/net.") == 2  # run_infer_310.sh needs the second one
        beside = onnx_model.load(tmp_path / "out" / "net.onnx", threads=1)
        assert beside.meta["class_to_index"] == about["class_to_index"]

    def test_air_is_refused_here(self, best, tiny, tmp_path):
        result = run_command(
            ROOT / "export.py", "--config_path", tiny, "--ckpt_file", best, "--file_format", "AIR", cwd=tmp_path
        )
        assert result.returncode == 2
        assert result.stderr == (
            "error: file_format AIR needs an Ascend machine and platform is CPU; export MINDIR or ONNX here\n"
        )

    def test_wrong_checkpoints_are_one_sentence(self, best, tiny, images, tmp_path):
        (tmp_path / "text.ckpt").write_text("hello")
        (tmp_path / "cut.ckpt").write_bytes(best.read_bytes()[:-1000])
        checkpoint.save(tmp_path / "other.ckpt", {"w": np.zeros(3, np.float32)}, {"model": "segformer"})
        checkpoint.save(tmp_path / "foreign.ckpt", {"w": np.zeros(3, np.float32)}, {})
        for name, words in {
            "text.ckpt": "damaged or no checkpoint",
            "cut.ckpt": "damaged or no checkpoint",
            "other.ckpt": "is a checkpoint of segformer",
            "foreign.ckpt": "has no 'head.dense.weight'",
        }.items():
            result = self.evaluate(tiny, images, tmp_path, tmp_path / name)
            assert result.returncode == 1
            assert words in result.stderr
            assert len(result.stderr.splitlines()) == 1, result.stderr


@pytest.mark.slow
def test_profile_is_written_and_explained(tiny, images, tmp_path):
    result = train(tiny, images, tmp_path, "--enable_profiling", "True", "--epoch_size", "2")
    assert result.returncode == 0, result.stderr
    assert "profile of steps 3 to 7 in run/profile" in result.stdout
    assert list(tmp_path.glob("run/profile/**/cpu_op_type_info_0.csv"))


def test_two_runs_on_one_folder_are_refused(tiny, images, tmp_path):
    import fcntl

    (tmp_path / "run").mkdir()
    with (tmp_path / "run" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = train(tiny, images, tmp_path)
    assert result.returncode == 1
    assert "another run is writing to run" in result.stderr


def test_the_compile_cache_of_the_framework_is_refused(tiny, images, tmp_path):
    """MindSpore 2.8.0 on CPU: the first loss was 0.79 with a compiled graph and 1e15 with one from the cache."""
    flags = ["--config_path", tiny, "--dataset_path", images / "train"]
    result = run_command(ROOT / "train.py", *flags, cwd=tmp_path, MS_COMPILER_CACHE_ENABLE="1")
    assert result.returncode == 2
    assert "wrong numbers from that cache; unset it" in result.stderr


def test_too_few_images_for_a_batch(tiny, images, tmp_path):
    result = train(tiny, images, tmp_path, "--batch_size", "100")
    assert result.returncode == 2
    assert "holds 24 images, fewer than one batch of 100" in result.stderr
    assert not (tmp_path / "run").exists()


def test_loss_that_is_not_finite_stops_the_run(tiny, images, tmp_path):
    result = train(tiny, images, tmp_path, "--lr_init", "1e30", "--lr_max", "1e30", "--epoch_size", "1")
    assert result.returncode == 1
    assert re.search(r"the loss is (nan|inf) at epoch 1, step \d, learning rate [\d.]+e\+\d+", result.stderr)


@pytest.mark.slow
def test_disk_full_during_a_checkpoint_keeps_the_last_good_one(tiny, images, tmp_path):
    """A limit on the size of files stands in for the full disk; the second checkpoint does not fit under it."""
    import resource

    first = train(tiny, images, tmp_path, "--epoch_size", "1", "--save_checkpoint_steps", "0")
    assert first.returncode == 0, first.stderr
    good = tmp_path / "run" / "mobilenetv2-1_4.ckpt"
    before = good.read_bytes()

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, len(before) // 2))

    command = [sys.executable, ROOT / "train.py", "--config_path", tiny, "--dataset_path", images / "train"]
    command += ["--resume", "auto", "--save_checkpoint_steps", "0"]
    second = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, preexec_fn=limit)
    assert second.returncode == 1
    assert re.search(r"error: cannot write run/mobilenetv2-2_4.ckpt: .*make room", second.stderr), second.stderr
    assert good.read_bytes() == before
    assert not list(tmp_path.glob("run/.writing-*"))
    assert [path.name for path in tmp_path.glob("run/*.ckpt")] == [good.name]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_run_folder(tiny, images, tmp_path):
    (tmp_path / "run").mkdir(mode=0o555)
    result = train(tiny, images, tmp_path)
    assert result.returncode == 1
    assert "cannot write to run" in result.stderr


def test_network_learns_eight_images(images, tmp_path):
    """Overfitting is the shortest proof that loss, gradients and optimizer fit together."""
    device.setup("CPU")
    net = network.build(4, 0.35, seed=1)
    net.set_train(True)
    optimizer = step.momentum_optimizer(net, 0.9, 0.0)

    def loss(image, target):
        return cross_entropy(net(image), target)

    run = step.make_step(loss, optimizer)
    rng = np.random.default_rng(0)
    image = rng.standard_normal((8, 3, 64, 64)).astype(np.float32)
    target = np.eye(4, dtype=np.float32)[rng.integers(0, 4, 8)]
    losses = [float(run(0.02, image, target).asnumpy()) for _ in range(40)]
    assert losses[0] > 1.2
    assert min(losses[-5:]) < 0.1


def test_hub_entry():
    from mindspore_hub_conf import create_network

    net = create_network("mobilenetv2", num_classes=7, activation="Softmax")
    scores = net(ms.Tensor(np.zeros((2, 3, 32, 32), np.float32))).asnumpy()
    np.testing.assert_allclose(scores.sum(1), 1, atol=1e-5)
    assert create_network("mobilenetv2", include_top=False).out_channels == 1280
    with pytest.raises(ValueError, match="no network is called 'resnet'"):
        create_network("resnet")
