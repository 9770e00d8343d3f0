"""SegFormer's commands on a tiny data set: files written, lines printed, resume, evaluation, pictures, export.

A training process costs about half a minute, mostly compilation, so the tests share two of them.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

pytestmark = pytest.mark.needs_mindspore
ms = pytest.importorskip("mindspore")

from src import zoo  # noqa: E402
from src.engine import device, loop  # noqa: E402
from src.engine.export import exporting, onnx_model  # noqa: E402
from src.engine.io import checkpoint, run  # noqa: E402
from src.engine.ranks import Rank  # noqa: E402
from src.engine.steps.step import TrainStep  # noqa: E402
from src.segformer import checkpoints, names, network, recipe, training  # noqa: E402
from src.segformer.data.labels import CITYSCAPES  # noqa: E402
from src.segformer.predicting import pictures  # noqa: E402
from tests.conftest import ROOT, run_command, write_settings  # noqa: E402
from tests.segmentation_data import write_generic  # noqa: E402
from tests.waiting import wait_until  # noqa: E402

TINY = {
    "__BASE__": str(ROOT / "configs" / "segformer" / "segformer.b0.cpu.yaml"),
    "base_size": [32, 64],
    "crop_size": [32, 64],
    "class_num": 3,
    "batch_size": 2,
    "epoch_size": 2,
    "warmup_steps": 2,
    "train_log_interval": 2,
    "eval_interval": 1,
    "eval_log_interval": 2,
    "infer_log_interval": 2,
    "save_checkpoint_steps": 1,
    "checkpoint_path": "run",
}
STEP_LINE = re.compile(r"Epoch \d/2, step:2/3, loss:\d\.\d+, overflow:False, loss_scale:1\.0, step cost:\d+ms")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """6 training and 3 validation images in 3 classes: 3 steps an epoch."""
    return write_generic(tmp_path_factory.mktemp("data"), {"train": 6, "val": 3})


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return write_settings(tmp_path_factory.mktemp("config") / "tiny.yaml", TINY)


@pytest.fixture(scope="module")
def undisturbed(tiny, data, tmp_path_factory) -> tuple[Path, str]:
    """The run folder and output of a training that nothing interrupts."""
    cwd = tmp_path_factory.mktemp("undisturbed")
    result = run_command(ROOT / "train.py", "--config_path", tiny, "--data_path", data, cwd=cwd)
    assert result.returncode == 0, result.stderr
    return cwd / "run", result.stdout


@pytest.fixture(scope="module")
def best(undisturbed) -> Path:
    return undisturbed[0] / "segformer_mit_b0_best.ckpt"


def configure(command: str, tiny: Path, *flags: object):
    return zoo.configure(command, ["--config_path", str(tiny), *map(str, flags)])


class TestTrain:
    def test_lines_are_the_documented_ones(self, undisturbed):
        lines = undisturbed[1].splitlines()
        assert lines.count("train dataset size:6") == 1
        steps = [line for line in lines if line.startswith("Epoch ")]
        assert len(steps) == 2
        assert all(STEP_LINE.fullmatch(line) for line in steps)
        begin = lines.index("eval dataset size:3")
        assert re.fullmatch(r"eval image 2/3 done, step cost: \d+ms", lines[begin + 1])
        assert lines[begin + 2] == "=" * 22 + " Evaluation Result " + "=" * 22
        assert re.fullmatch(r"===> class: street, IoU: (\d\.\d+(e-\d+)?|nan)", lines[begin + 3])
        assert lines[begin + 6] == lines[begin + 8] == "=" * 63
        assert re.fullmatch(r"===> mIoU: \d\.\d+, ckpt: segformer_mit_b0_1\.ckpt", lines[begin + 7])
        assert re.fullmatch(r"all train process done, cost:\d+s", lines[-1])

    def test_files_of_a_run(self, undisturbed):
        run = undisturbed[0]
        found = {path.name for path in run.iterdir()}
        assert {f"segformer_mit_b0_{name}.ckpt" for name in ("1", "2", "best")} <= found
        assert {"train.log", "metrics.jsonl", "config.yaml", "versions.json", "curves.png"} <= found
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert [row["images"] for row in rows if row["kind"] == "eval"] == [3, 3]
        meta = checkpoint.read(run / "segformer_mit_b0_2.ckpt").meta
        assert (meta["backbone"], meta["decoder_dim"], meta["classes"]["names"]) == (
            "mit_b0",
            256,
            ["street", "house", "tree"],
        )

    @pytest.mark.slow
    def test_killed_in_the_middle_of_an_epoch_and_resumed_it_reaches_the_same_weights(
        self, undisturbed, tiny, data, tmp_path
    ):
        command = [sys.executable, ROOT / "train.py", "--config_path", tiny, "--data_path", data, "--resume", "auto"]
        with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            pattern = "run/segformer_mit_b0-*_*.ckpt"
            wait_until(lambda: list(tmp_path.glob(pattern)), "a checkpoint", process=process)
            process.kill()
        result = run_command(*command[1:], cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        assert "resumed from run/segformer_mit_b0" in result.stdout
        one = checkpoint.read(undisturbed[0] / "segformer_mit_b0_2.ckpt")
        two = checkpoint.read(tmp_path / "run" / "segformer_mit_b0_2.ckpt")
        assert one.meta["position"] == two.meta["position"]
        assert one.arrays.keys() == two.arrays.keys()
        for name, array in one.arrays.items():
            assert (array == two.arrays[name]).all(), name

    def test_another_seed_is_no_continuation(self, undisturbed, tiny, data, tmp_path):
        flags = ["--data_path", data, "--checkpoint_path", tmp_path, "--seed", "2"]
        file = undisturbed[0] / "segformer_mit_b0_1.ckpt"
        with pytest.raises(recipe.ZooError, match=r"was made with another seed \(1\)"):
            recipe.train(configure("train", tiny, "--resume", file, *flags))

    def test_checkpoints_name_the_original_recipe_as_they_did_when_it_was_called_seed(self, tiny, data):
        flags = ["--data_path", data, "--load_ckpt", "False", "--recipe"]
        before = {**checkpoints.metadata(configure("train", tiny, *flags, "original"), CITYSCAPES), "recipe": "seed"}
        stored = checkpoint.Checkpoint(Path("x.ckpt"), {}, {**before, "position": {}})
        for spelling in ("original", "seed"):
            run.require_same(stored, checkpoints.metadata(configure("train", tiny, *flags, spelling), CITYSCAPES))
        with pytest.raises(recipe.ZooError, match=r"x.ckpt was made with another recipe \(seed\)"):
            run.require_same(stored, checkpoints.metadata(configure("train", tiny, *flags, "paper"), CITYSCAPES))


def test_a_removed_checkpoint_is_named_in_the_log(tmp_path, capsys):
    schedule = loop.Schedule(epochs=9, steps_per_epoch=3, images_per_step=2, samples=6, lr=np.zeros(27, np.float32))
    kept = run.RunSettings(tmp_path, checkpoint.Names("m", "{prefix}_{epoch}.ckpt"), "m_best.ckpt", {}, "", keep=2)
    with run.open_run(kept, Rank()) as opened:
        for epoch in (1, 2, 3):
            opened.save([ms.Parameter(np.float32([1]), name="w")], loop.Position(epoch, 0), schedule)
    assert "removed m_1.ckpt, which this run no longer keeps" in (tmp_path / "train.log").read_text().splitlines()
    assert "removed m_1.ckpt" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.glob("*.ckpt")) == ["m_2.ckpt", "m_3.ckpt"]


@pytest.mark.parametrize(("crop", "is_told"), [("32,64", False), ("40,64", True)])
def test_the_log_of_a_training_tells_of_padding(tiny, data, tmp_path, monkeypatch, crop, is_told):
    def stop(*_):
        raise recipe.ZooError("stopped")

    monkeypatch.setattr(training, "optimizer", stop)
    flags = ["--data_path", data, "--checkpoint_path", tmp_path, "--crop_size", crop, "--cpu_kernels", "off"]
    with pytest.raises(recipe.ZooError, match="stopped"):
        recipe.train(configure("train", tiny, *flags))
    text = (tmp_path / "train.log").read_text()
    assert "3 classes in" in text
    assert text.count("warning: crop_size is [40, 64] and an image of 40 x 80 fitted to base_size") == is_told


class Quiet:
    """A journal that keeps its lines."""

    def __init__(self):
        self.lines = []

    bar = staticmethod(lambda steps, *names: steps)
    on_bar = measure = staticmethod(lambda *values, **named: None)

    def line(self, text):
        self.lines.append(text)


def test_the_cost_in_a_line_is_the_mean_of_the_steps_since_the_line_before(monkeypatch):
    now, times = [0.0], iter([0.02, 0.08, 0.1, 0.2] + [0.3, 0.3, 0.1, 0.5, 0.05, 0.05])  # seconds of the steps
    monkeypatch.setattr(loop.time, "perf_counter", lambda: now[0])

    def step(rate):
        now[0] += next(times)
        return ms.Tensor(0.5)

    schedule = loop.Schedule(
        epochs=3, steps_per_epoch=6, images_per_step=1, samples=6, lr=np.ones(18), log_interval=2, log_last=False
    )
    made = loop.Training(None, TrainStep(step, []), lambda *at: itertools.repeat(()), schedule, lines=training.LINES)
    journal = Quiet()
    loop.train(made, loop.Position(epoch=1, step=2), journal, lambda position: None)
    assert [line.split("cost:")[1] for line in journal.lines] == ["50ms", "150ms", "300ms", "300ms", "50ms"]


def test_an_evaluation_that_fails_costs_no_epoch():
    def fail(position):
        raise recipe.ZooError("a label of another size")

    schedule = loop.Schedule(epochs=1, steps_per_epoch=1, images_per_step=1, samples=1, lr=np.ones(1), save_epochs=9)
    one_step, saved = TrainStep(lambda rate: ms.Tensor(1.0), []), []
    made = loop.Training(None, one_step, lambda *at: [()], schedule, fail)
    with pytest.raises(recipe.ZooError, match="another size"):
        loop.train(made, loop.Position(), Quiet(), saved.append)
    assert saved == [loop.Position(epoch=1)]


class TestPretrained:
    def test_a_head_of_another_size_starts_anew_and_the_encoder_does_not(self, best, tiny):
        stored = checkpoints.read(str(best))
        cfg = configure("eval", tiny, "--eval_ckpt_path", best, "--data_path", best.parent)
        for classes, text in ((3, "loaded 191 arrays"), (5, "15 of the decode_head start anew")):
            net = network.build("mit_b0", classes, 0, seed=9)
            assert text in checkpoints.load(net, stored, cfg)
            assert (net.backbone.stages[0].patch_embed.proj.weight.asnumpy() == stored.arrays[names.FIRST]).all()

    @pytest.mark.parametrize(
        ("flags", "words"),
        [
            (["--backbone", "mit_b1"], "holds a mit_b0 and backbone is mit_b1"),
            (["--class_num", "4"], "class_num is 4 and .* has 3 classes"),
            (["--decoder_dim", "512"], "decoder_dim is 512 and .* has 256"),
        ],
    )
    def test_a_checkpoint_of_another_network_is_one_sentence(self, best, tiny, flags, words):
        cfg = configure("export", tiny, "--export_ckpt_path", best, "--export_format", "ONNX", *flags)
        with pytest.raises(recipe.ZooError, match=words):
            checkpoints.network_of(checkpoints.read(str(best)), cfg)


class TestOtherClasses:
    """What a checkpoint says about its classes, against the data and the configuration."""

    @pytest.fixture
    def known(self, tmp_path, data) -> Path:
        """A network that was not trained, which names the classes of `data`."""
        pairs = recipe.dataset.find_pairs(str(data), recipe.VAL)
        return self.write(tmp_path / "known.ckpt", classes=checkpoints.class_table(pairs.classes))

    @pytest.fixture
    def nameless(self, tmp_path) -> Path:
        """One that names none, as converted weights."""
        return self.write(tmp_path / "nameless.ckpt")

    def write(self, path: Path, start: str = "", **meta) -> Path:
        arrays = checkpoint.arrays_of(network.build("mit_b0", 3, 0, seed=1).get_parameters())
        arrays = {name: array for name, array in arrays.items() if name.startswith(start)}
        checkpoint.save(path, arrays, {"model": "segformer", "backbone": "mit_b0", **meta})
        return path

    def test_evaluation_on_other_classes_is_refused(self, known, tiny, data, tmp_path):
        other = shutil.copytree(data, tmp_path / "other")
        (other / "classes.csv").write_text((data / "classes.csv").read_text().replace("house", "barn"))
        cfg = configure("eval", tiny, "--eval_ckpt_path", known, "--data_path", other)
        with pytest.raises(recipe.ZooError, match=r"known.ckpt was trained on other classes \(street, house, tree"):
            recipe.evaluate(cfg)

    @pytest.mark.parametrize("command", ["eval", "infer", "export"])
    def test_an_encoder_alone_predicts_nothing(self, command, tiny, data, tmp_path):
        encoder = self.write(tmp_path / "encoder.ckpt", start=names.ENCODER_PREFIX)
        flags = [f"--{command}_ckpt_path", encoder, "--data_path", data, "--export_format", "ONNX"]
        flags += ["--infer_output_path", tmp_path / "out", "--class_list", data / "classes.csv"]
        run = {"eval": recipe.evaluate, "infer": recipe.infer, "export": recipe.export}[command]
        with pytest.raises(
            recipe.ZooError, match=r"encoder.ckpt holds an encoder without a decode head; train from it"
        ):
            run(configure(command, tiny, *flags))

    @pytest.mark.parametrize(
        ("checkpoint_name", "names_in_list", "words"),
        [
            ("nameless", 0, "class_num is 3 and .*nameless.ckpt does not name its classes; give --class_list"),
            ("nameless", 2, "class_num is 3 but .*two.csv names 2 classes"),
            ("known", 2, "class_num is 3 but .*two.csv names 2 classes"),
        ],
    )
    def test_pictures_need_a_colour_per_class(
        self, checkpoint_name, names_in_list, words, tiny, data, tmp_path, request
    ):
        file = request.getfixturevalue(checkpoint_name)
        flags = ["--infer_ckpt_path", file, "--data_path", data, "--infer_output_path", tmp_path / "out"]
        if names_in_list:
            lines = (data / "classes.csv").read_text().splitlines(keepends=True)
            (tmp_path / "two.csv").write_text("".join(lines[: 1 + names_in_list]))
            flags += ["--class_list", tmp_path / "two.csv"]
        with pytest.raises(recipe.UsageError, match=words):
            recipe.infer(configure("infer", tiny, *flags))
        assert not (tmp_path / "out").exists()


def test_evaluation_repeats_that_of_the_training_and_writes_what_is_asked(best, tiny, data, tmp_path, capsys):
    flags = ["--eval_ckpt_path", best, "--data_path", data, "--per_class_csv", tmp_path / "c.csv"]
    cfg = configure("eval", tiny, *flags, "--eval_json", tmp_path / "e.json")
    assert recipe.evaluate(cfg) == 0
    output = capsys.readouterr().out
    score = float(re.search(r"===> mIoU: ([\d.]+), ckpt: segformer_mit_b0_best\.ckpt", output)[1])
    assert score == pytest.approx(checkpoint.read(best).meta["score"], abs=1e-6)
    assert re.search(r"images: 3 of 3, ms/image: \d+\n", output)
    assert re.search(r"all eval process done, cost:\d+s\n$", output)
    assert json.loads((tmp_path / "e.json").read_text())["images"] == 3
    assert (tmp_path / "c.csv").read_text().startswith("class,pixels,predicted,iou,accuracy\nstreet,")
    windows = ["--eval_mode", "slide", "--slide_crop", "32,32", "--multi_scale", "1.0,1.5", "--flip", "True"]
    assert recipe.evaluate(configure("eval", tiny, "--eval_ckpt_path", best, "--data_path", data, *windows)) == 0
    assert "images: 3 of 3" in capsys.readouterr().out


def test_inference_writes_its_pictures_at_the_original_size(best, tiny, data, tmp_path, capsys):
    inputs = tmp_path / "in"
    shutil.copytree(data / "images" / "val", inputs)
    (inputs / "broken.png").write_bytes(b"no image")
    cv2.imwrite(str(inputs / "GREY.PNG"), np.full((50, 31), 90, np.uint8))
    output = tmp_path / "out"
    flags = ["--infer_ckpt_path", best, "--data_path", inputs, "--infer_output_path", output]
    cfg = configure("infer", tiny, *flags, "--infer_batch_size", "2")
    assert recipe.infer(cfg) == 0
    text = capsys.readouterr().out
    assert f"get image size:5, infer result will save to {output}\n" in text
    assert re.search(r"infer 4/5 done, step cost:\d+ms\n", text)
    assert re.search(r"all infer process done, cost:\d+s\n$", text)
    assert "skipped" in text
    assert "broken.png" in text
    assert cv2.imread(str(output / "GREY_gray.png"), cv2.IMREAD_UNCHANGED).shape == (50, 31)
    for end in ("_gray.png", "_color.png", "_overlap.png", ".jpg"):
        assert cv2.imread(str(output / "sub dir" / f"00{end}")).shape == (40, 80, 3)
    assert set(np.unique(cv2.imread(str(output / "sub dir" / "00_gray.png"), cv2.IMREAD_UNCHANGED))) <= {0, 1, 2}
    assert (output / pictures.LEGEND).is_file()


def test_exported_files_give_the_networks_answers(best, tiny, tmp_path, capsys):
    for number, file_format in enumerate(("MINDIR", "ONNX")):
        flags = ["--export_ckpt_path", best, "--export_format", file_format, "--export_name", tmp_path / "a.b"]
        assert recipe.export(configure("export", tiny, *flags)) == 0
        difference = float(re.search(r"on random input: ([\d.e-]+)", capsys.readouterr().out)[1])
        assert difference <= (0, 1e-4)[number]
        assert (tmp_path / "a.b.onnx").is_file()  # beside MINDIR too
        (tmp_path / "a.b.onnx").rename(tmp_path / f"{number}.onnx")
    image = exporting.random_input((1, 3, 32, 64), 3)
    beside, alone = (onnx_model.load(tmp_path / f"{number}.onnx", threads=1) for number in (0, 1))
    assert (beside.predict(image) == alone.predict(image)).all() and beside.meta == alone.meta
    (tmp_path / "1.onnx").rename(tmp_path / "a.b.onnx")
    model = onnx_model.load(tmp_path / "a.b.onnx", threads=1)
    assert {node.op_type for node in exporting.onnx.load(str(tmp_path / "a.b.onnx")).graph.node} >= {"Erf", "MatMul"}
    assert model.meta["classes"]["names"] == ["street", "house", "tree"]
    assert model.predict(np.zeros((1, 3, 32, 64), np.float32)).shape == (1, 3, 32, 64)
    any_size(best, tiny, tmp_path, capsys, model)


def any_size(best, tiny, tmp_path, capsys, fixed):
    flags = ["--export_ckpt_path", best, "--export_format", "ONNX", "--export_name", tmp_path / "free"]
    assert recipe.export(configure("export", tiny, *flags, "--dynamic_size", "True")) == 0
    found = re.findall(r"on ([\w ]+) input: ([\d.e-]+)", capsys.readouterr().out)
    assert [kind for kind, _ in found] == ["random", "2 x 37 x 37 random"]
    assert all(float(difference) <= 1e-4 for _, difference in found)
    free = onnx_model.load(tmp_path / "free.onnx", threads=1)
    images = exporting.random_input((2, 3, 32, 64), 5)
    assert np.abs(free.predict(images)[1:] - fixed.predict(images[1:])).max() <= 1e-4
    assert free.predict(images[:, :, :, :33]).shape == (2, 3, 32, 33)
    assert free.meta == fixed.meta


@pytest.mark.parametrize(("moved", "is_kept"), [(5e-5, True), (2e-4, False)])
def test_a_file_is_kept_only_within_1e_4_of_its_network(tmp_path, moved, is_kept):
    net, written = (ms.nn.Conv2d(3, 2, 1, has_bias=True) for _ in range(2))
    written.weight.set_data(net.weight)
    written.bias.set_data(net.bias + moved)
    images = {"random": exporting.random_input((1, 3, 8, 8), 1)}
    if is_kept:
        path, found = exporting.export(net, exporting.Target(tmp_path / "x", "ONNX", {}), images, written)
        assert found["random"] == pytest.approx(moved, rel=0.1)
        assert path.is_file()
        return
    with pytest.raises(recipe.ZooError, match=r"x.onnx differs from the network by 0.0002 on random input; it is not"):
        exporting.export(net, exporting.Target(tmp_path / "x", "ONNX", {}), images, written)
    assert not list(tmp_path.iterdir())


@pytest.fixture(autouse=True, scope="module")
def graph_mode():
    device.setup("CPU")
