"""SegFormer scored and drawn from exported files: in every way of predicting the classes are the checkpoint's."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

pytestmark = [pytest.mark.needs_mindspore, pytest.mark.slow]
pytest.importorskip("mindspore")

from src import zoo  # noqa: E402
from src.engine import device  # noqa: E402
from src.engine.errors import UsageError, ZooError  # noqa: E402
from src.engine.io import checkpoint  # noqa: E402
from src.segformer import checkpoints, network, recipe  # noqa: E402
from src.segformer.predicting import segmenter  # noqa: E402
from tests.conftest import ROOT, write_settings  # noqa: E402
from tests.onnx_files import write_colour_classifier  # noqa: E402
from tests.runtimes import BACKENDS, HAS_OPENVINO  # noqa: E402
from tests.segmentation_data import write_generic  # noqa: E402
from tools import compare_backends  # noqa: E402

SIZE = [32, 64]
SLIDE = ["--eval_mode", "slide", "--slide_crop", "32,64", "--slide_stride", "16,32"]
WAYS = {
    "whole": [],
    "windows": [*SLIDE, "--base_size", "48,96"],
    "windows, two scales": [*SLIDE, "--multi_scale", "1.0,1.5", "--flip", "True"],
    "scales and mirror image": ["--multi_scale", "0.75,1.0,1.5", "--flip", "True"],
    "smaller scales": ["--multi_scale", "0.75,1.0"],
}
FIXED_EXACT = ("whole", "windows", "windows, two scales")  # where every input has the size of the file


@pytest.fixture(autouse=True, scope="module")
def graph_mode():
    device.setup("CPU")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_generic(tmp_path_factory.mktemp("data"), {"train": 1, "val": 3})


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> Path:
    values = {
        "__BASE__": str(ROOT / "configs" / "segformer" / "segformer.b0.cpu.yaml"),
        "base_size": SIZE, "crop_size": SIZE, "class_num": 3,
    }  # fmt: skip
    return write_settings(tmp_path_factory.mktemp("config") / "tiny.yaml", values)


def configure(command: str, settings: Path, *flags: object):
    return zoo.configure(command, ["--config_path", str(settings), *map(str, flags)])


@pytest.fixture(scope="module")
def files(settings, data, tmp_path_factory) -> dict[str, Path]:
    """A network that was not trained, as checkpoint, and exported for one size and for any."""
    folder = tmp_path_factory.mktemp("files")
    net = network.build("mit_b0", 3, 0, seed=4)
    classes = recipe.dataset.find_pairs(str(data), recipe.VAL).classes
    made = {"model": "segformer", "backbone": "mit_b0", "classes": checkpoints.class_table(classes)}
    checkpoint.save(folder / "net.ckpt", checkpoint.arrays_of(net.get_parameters()), made)
    for name, is_free in (("fixed", "False"), ("free", "True")):
        flags = ["--export_ckpt_path", folder / "net.ckpt", "--export_format", "ONNX", "--dynamic_size", is_free]
        assert recipe.export(configure("export", settings, *flags, "--export_name", folder / name)) == 0
    return {"checkpoint": folder / "net.ckpt", "fixed": folder / "fixed.onnx", "free": folder / "free.onnx"}


def confusion(settings: Path, data: Path, file: Path, out: Path, *flags: object) -> np.ndarray:
    given = ["--eval_ckpt_path", file, "--data_path", data, "--eval_json", out, *flags]
    assert recipe.evaluate(configure("eval", settings, *given)) == 0
    return np.array(json.loads(out.read_text())["confusion"])


@pytest.fixture(scope="module")
def expected(settings, data, files, tmp_path_factory) -> dict[str, np.ndarray]:
    """The confusion matrix of the checkpoint for each way of predicting; its network is compiled once for all ways."""
    out, opened, really = tmp_path_factory.mktemp("expected") / "e.json", [], segmenter.of_network

    def once(stored, cfg):
        if not opened:
            opened.append(really(stored, cfg))
        return opened[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segmenter, "of_network", once)
        return {way: confusion(settings, data, files["checkpoint"], out, *flags) for way, flags in WAYS.items()}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("way", WAYS)
def test_an_exported_file_scores_as_its_checkpoint(backend, way, settings, data, files, expected, tmp_path, capsys):
    for kind in ("free", "fixed") if way in FIXED_EXACT else ("free",):
        capsys.readouterr()
        flags = [*WAYS[way], "--eval_backend", backend]
        found = confusion(settings, data, files[kind], tmp_path / "e.json", *flags)
        said = capsys.readouterr().out
        assert f", ckpt: {files[kind].name}\n" in said and "images: 3 of 3" in said
        assert found.sum() == expected[way].sum() > 3000
        assert np.abs(found - expected[way]).sum() <= 0.002 * found.sum(), kind  # pixels on the edge of two classes


def test_the_ways_differ(expected):
    """So that the test above compares different things."""
    matrices = [matrix.tolist() for matrix in expected.values()]
    assert all(matrices.count(matrix) == 1 for matrix in matrices)


@pytest.mark.parametrize("backend", BACKENDS)
def test_smaller_images_are_padded_to_the_size_of_a_fixed_file(backend, settings, data, files, tmp_path, capsys):
    flags = [*WAYS["smaller scales"], "--eval_backend", backend]
    found = confusion(settings, data, files["fixed"], tmp_path / "e.json", *flags)
    assert "takes images of 32 x 64 alone; smaller ones are padded to that" in capsys.readouterr().out
    assert found.sum() > 3000


@pytest.mark.parametrize("backend", BACKENDS)
def test_pictures_from_an_exported_file_are_those_of_the_checkpoint(backend, settings, data, files, tmp_path, capsys):
    for name, file, runs in (("a", files["checkpoint"], "mindspore"), ("b", files["fixed"], backend)):
        flags = ["--infer_ckpt_path", file, "--data_path", data, "--infer_output_path", tmp_path / name]
        assert recipe.infer(configure("infer", settings, *flags, "--eval_backend", runs)) == 0
    assert "get image size:4" in capsys.readouterr().out
    grey = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*_gray.png"))
    assert len(grey) == 4
    for path in grey:
        one, other = (cv2.imread(str(tmp_path / name / path), cv2.IMREAD_UNCHANGED) for name in ("a", "b"))
        assert (one == other).mean() >= 0.998
    assert (tmp_path / "a" / "class_legend.png").read_bytes() == (tmp_path / "b" / "class_legend.png").read_bytes()


class TestWhatIsRefused:
    def evaluate(self, settings, data, file, *flags, backend="onnx"):
        given = ["--eval_ckpt_path", file, "--data_path", data, "--eval_backend", backend, *flags]
        return recipe.evaluate(configure("eval", settings, *given))

    @pytest.mark.parametrize(
        ("kind", "flags", "sentence"),
        [
            ("free", ["--class_num", "3", "--img_norm_mean", "1,2,3"], "was exported with .*; give --img_norm_mean"),
            ("fixed", ["--eval_mode", "slide", "--slide_crop", "32,32"], "the windows are 32 x 32 and .*32 x 64"),
            ("fixed", ["--multi_scale", "2.0"], "takes images of 32 x 64, and one of 64 x 128 came"),
            ("fixed", ["--base_size", "64,128"], "takes images of 32 x 64, and one of 64 x 128 came"),
        ],
    )
    def test_settings_that_the_file_was_not_made_for(self, kind, flags, sentence, settings, data, files):
        with pytest.raises(ZooError, match=sentence):
            self.evaluate(settings, data, files[kind], *flags)

    def test_other_files(self, settings, data, files, tmp_path):
        write_colour_classifier(tmp_path / "colours.onnx", 1)
        with pytest.raises(ZooError, match=r"colours.onnx holds no segformer: it gives no scores per pixel"):
            self.evaluate(settings, data, tmp_path / "colours.onnx")
        (tmp_path / "text.onnx").write_text("no model")
        with pytest.raises(ZooError, match=r"text.onnx is no ONNX file"):
            self.evaluate(settings, data, tmp_path / "text.onnx")
        with pytest.raises(UsageError, match="eval_backend is onnx and eval_ckpt_path .*net.ckpt"):
            self.evaluate(settings, data, files["checkpoint"])
        with pytest.raises(UsageError, match="eval_backend is mindspore and eval_ckpt_path .*free.onnx"):
            self.evaluate(settings, data, files["free"], backend="mindspore")

    def test_other_classes(self, settings, data, files, tmp_path, capsys):
        other = write_generic(tmp_path / "other", {"val": 1})
        (other / "classes.csv").write_text((data / "classes.csv").read_text().replace("house", "barn"))
        with pytest.raises(ZooError, match=r"free.onnx was trained on other classes \(street, house, tree"):
            self.evaluate(settings, other, files["free"])
        flags = ["--config_path", str(settings), "--data_path", str(other)]
        assert compare_backends.main([str(files["free"]), *flags]) == 1
        assert "was trained on other classes" in capsys.readouterr().err

    @pytest.mark.skipif(HAS_OPENVINO, reason="OpenVINO is installed")
    def test_a_runtime_that_is_missing(self, settings, data, files):
        with pytest.raises(ZooError, match="OpenVINO is not installed; run: pip install openvino"):
            self.evaluate(settings, data, files["free"], backend="openvino")


def test_checkpoint_and_files_in_one_table(settings, data, files, expected, capsys):
    """The same mIoU in every row, and all but a few pixels of the checkpoint's class."""
    named = [str(files[kind]) for kind in ("checkpoint", "free", "fixed")]
    flags = ["--config_path", str(settings), "--data_path", str(data), "--trials", "10"]
    assert compare_backends.main([*named, *flags]) == 0
    table = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert [cell.strip("| ") for cell in table[0][:4]] == ["file", "runtime", "mIoU", "same pixels"]
    rows = table[2:]
    assert len(rows) == (5 if HAS_OPENVINO else 3) and "MindSpore" in rows[0]
    for row in rows:
        same, counted = map(int, row[3].split(" of "))
        assert counted == expected["whole"].sum() and 0.998 * counted <= same <= counted
        assert float(row[2]) == pytest.approx(float(rows[0][2]), abs=1e-3)
    assert rows[0][3] == f"{counted} of {counted}"
