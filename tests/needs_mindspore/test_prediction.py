"""Predicting images with an exported file of known answers: lines, table and contact sheet, whatever the files are."""

from __future__ import annotations

import csv
import dataclasses
import os
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.needs_mindspore
pytest.importorskip("mindspore")

from src.classification import evaluation  # noqa: E402
from src.classification.predicting import prediction  # noqa: E402
from src.classification.predicting.contact_sheet import ContactSheet  # noqa: E402
from src.classification.predicting.scorer import Scorer  # noqa: E402
from src.engine.config import build, read_yaml  # noqa: E402
from src.engine.data import images as image_files  # noqa: E402
from src.engine.data import stream  # noqa: E402
from src.engine.errors import UsageError, ZooError  # noqa: E402
from src.mobilenetv2.classifier import MOBILENETV2  # noqa: E402
from src.mobilenetv2.config import Config  # noqa: E402
from tests.conftest import CLASSES, ROOT, run_command, write_images  # noqa: E402
from tests.onnx_files import SIDE, write_colour_classifier  # noqa: E402
from tests.runtimes import BACKENDS  # noqa: E402

LINE = re.compile(r"(.+): (.+ \d\.\d\d(?:, .+ \d\.\d\d)*)")


@pytest.fixture
def predict(tmp_path):
    """predict(data, key=value ...) writes into tmp_path/out, with a file that knows the classes by their colours."""
    write_colour_classifier(tmp_path / "net.onnx", 1)

    def run(data: Path, **values) -> list[dict[str, str]]:
        given = {
            **{"image_height": SIDE, "image_width": SIDE, "batch_size": 4, "eval_backend": "onnx"},
            **{"pretrain_ckpt": str(tmp_path / "net.onnx"), "infer_output_path": str(tmp_path / "out")},
            **{"data_path": str(data), **values},
        }
        cfg = dataclasses.replace(build(Config, read_yaml(ROOT / "default_config_cpu.yaml")), **given)
        cfg.check_for("infer")
        assert prediction.run(MOBILENETV2, cfg, None) == 0
        with (tmp_path / "out" / "predictions.csv").open(encoding="utf-8", newline="") as handle:
            return list(csv.DictReader(handle))

    return run


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_image_has_a_line_and_a_row(predict, images, tmp_path, capsys, backend):
    rows = predict(images / "val", eval_backend=backend)
    said = capsys.readouterr().out.splitlines()
    assert [row["file"] for row in rows] == [f"{name}/{i:03d}.jpg" for name in CLASSES for i in range(3)]
    for row, line in zip(rows, said):
        file, likely = LINE.fullmatch(line).groups()
        pairs = [(row[f"class_{place}"], float(row[f"probability_{place}"])) for place in (1, 2, 3)]
        assert file == row["file"] and "class_4" not in row  # top_k is 5, and there are three classes
        assert likely == ", ".join(f"{name} {share:.2f}" for name, share in pairs)
        assert row["truth"] == row["class_1"] == file.split("/")[0]
        assert sum(share for _, share in pairs) == pytest.approx(1, abs=2e-6)
        assert sorted(pairs, key=lambda pair: -pair[1]) == pairs
    assert "top-1: 1.000000, right: 9 of 9 images whose folders name their class" in said
    assert said[-1] == f"wrote {tmp_path / 'out' / 'predictions.csv'} and {tmp_path / 'out' / 'contact_sheet.png'}"
    assert Image.open(tmp_path / "out" / "contact_sheet.png").size[0] > 1000
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["contact_sheet.png", "predictions.csv"]


def test_probabilities_are_the_softmax_of_the_scores(predict, images):
    scores = np.array([[0.0, 1.0, 3.0]])
    powers = np.exp(scores)
    np.testing.assert_allclose(
        Scorer(lambda _: scores, 3, None, 1).probabilities(np.zeros(1)), powers / powers.sum(), rtol=1e-12
    )
    softmax = Scorer(lambda _: scores / 4, 3, None, 1, activation="Softmax")
    np.testing.assert_array_equal(softmax.probabilities(np.zeros(1)), scores / 4)
    huge = Scorer(lambda _: scores * 1e30, 3, None, 1).probabilities(np.zeros(1))
    np.testing.assert_array_equal(huge, [[0, 0, 1]])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("folders", "expected"), [(("owl", "cat", "dog"), 0), (("owl", "dog", "cat"), 5)])
def test_as_many_are_right_as_evaluation_counts(predict, tmp_path, capsys, backend, folders, expected):
    """Pictures of one colour in the folders of others: the same images are right in both commands."""
    write_images(tmp_path / "data", 5, classes=folders)
    predict(tmp_path / "data", eval_backend=backend)
    right = re.search(r"right: (\d+) of 15", capsys.readouterr().out)[1]
    cfg = dataclasses.replace(
        build(Config, read_yaml(ROOT / "default_config_cpu.yaml")),
        **{"image_height": SIDE, "image_width": SIDE, "batch_size": 4, "eval_backend": backend},
        **{"dataset_path": str(tmp_path / "data"), "pretrain_ckpt": str(tmp_path / "net.onnx")},
    )
    evaluation.run(MOBILENETV2, cfg, None)
    accuracy = float(re.search(r"'acc': ([\d.]+)", capsys.readouterr().out)[1])
    assert int(right) == round(accuracy * 15) == expected


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_an_archive_is_predicted_as_its_folder(predict, images, tmp_path, kind):
    archive = shutil.make_archive(str(tmp_path / "val"), kind, images / "val")
    assert predict(archive) == predict(images / "val")


def test_one_image_and_top_k(predict, images, capsys):
    (row,) = predict(images / "val" / "owl" / "001.jpg", top_k=1)
    assert list(row) == ["file", "truth", "class_1", "probability_1"]
    assert (row["file"], row["truth"], row["class_1"]) == ("001.jpg", "", "owl")
    assert "whose folders name" not in capsys.readouterr().out


def test_folders_above_the_class_folders_and_others(predict, images, tmp_path):
    """The class is that of the outermost folder with its name; other folders say nothing."""
    for place in ("val/dog/young/owl", "misc", "."):
        (tmp_path / "data" / place).mkdir(parents=True, exist_ok=True)
        shutil.copy(images / "val" / "owl" / "000.jpg", tmp_path / "data" / place / "x.jpg")
    assert [(row["file"], row["truth"]) for row in predict(tmp_path / "data")] == [
        ("misc/x.jpg", ""), ("val/dog/young/owl/x.jpg", "dog"), ("x.jpg", ""),
    ]  # fmt: skip


def test_a_bad_image_is_named_and_skipped(predict, images, tmp_path, capsys):
    data = shutil.copytree(images / "val", tmp_path / "data")
    (data / "cat" / "001.jpg").write_bytes(b"broken")
    (data / "owl" / "zz.png").touch()
    (data / "notes.txt").write_text("no image, and not said to be one")
    rows = predict(data)
    said = capsys.readouterr().out
    assert len(rows) == 8 and "cat/001.jpg" not in [row["file"] for row in rows]
    assert "skipped cat/001.jpg: not an image" in said and "skipped owl/zz.png: empty file" in said
    assert "2 bad files skipped" in said and "8 of 10 images" in said and "notes" not in said
    with pytest.raises(ZooError, match=r"cat/001\.jpg is no usable image"):
        predict(data, on_bad_image="error")


def test_names_that_are_no_lines_and_no_text(predict, images, tmp_path, capsysbinary):
    """Newlines, commas, quotes, bytes that are no UTF-8: still one line and one row per image."""
    names = [b"a\nb.jpg", b"\xff\xfe.jpg", b'"q", x.jpg', b"b\rc.jpg", "猫\u2028.jpg".encode(), b"back\\slash.jpg"]
    data = os.fsencode(tmp_path / "data")
    os.mkdir(data)  # noqa: PTH102 (a name in bytes)
    for name in names:
        shutil.copy(os.fsencode(images / "val" / "owl" / "000.jpg"), data + b"/" + name)
        with open(data + b"/bad" + name, "wb") as handle:  # noqa: PTH123
            handle.write(b"broken")
    rows = predict(tmp_path / "data")
    said = capsysbinary.readouterr().out.decode("utf-8").splitlines()
    back = [row["file"].encode("latin-1", "backslashreplace").decode("unicode_escape") for row in rows]
    assert sorted(os.fsencode(name) for name in back) == sorted(names)
    assert [line.split(": owl")[0] for line in said if ": owl 0" in line] == [row["file"] for row in rows]
    assert len([line for line in said if line.startswith("skipped bad")]) == len(names)
    assert len((tmp_path / "out" / "predictions.csv").read_text("utf-8").splitlines()) == 1 + len(names)


def test_classes_with_any_names(predict, images, tmp_path, capsys):
    write_colour_classifier(tmp_path / "odd.onnx", "batch", ('a, "b"', "c\nd", "=1+1"))
    rows = predict(images / "val", pretrain_ckpt=str(tmp_path / "odd.onnx"))
    assert {row["class_1"] for row in rows} == {'a, "b"', "c\\nd", "=1+1"}
    assert len(capsys.readouterr().out.splitlines()) == 9 + 2


def test_thousands_stream(predict, tmp_path, monkeypatch):
    """At no moment are more images decoded and not yet written than a few batches hold, nor more pictures kept."""
    data = write_images(tmp_path / "data", 100)
    decode, add = image_files.decode, prediction.Results.add
    ahead, most = [0], [0]

    def counting(content):
        ahead[0] += 1
        most[0] = max(most[0], ahead[0])
        return decode(content)

    def written(results, found):
        ahead[0] -= 1
        assert len(results.sheet.pictures()) <= 40
        return add(results, found)

    monkeypatch.setattr(image_files, "decode", counting)
    monkeypatch.setattr(prediction.Results, "add", written)
    assert len(predict(data, batch_size=6)) == 300
    assert most[0] <= (stream.AHEAD + 2) * 6 + stream.usable_threads(99)


def test_the_sheet_shows_the_wrong_ones_first(predict, images, tmp_path, monkeypatch):
    data = shutil.copytree(images / "val", tmp_path / "data")
    shutil.move(data / "owl" / "002.jpg", data / "cat" / "zz.jpg")
    shown = []
    monkeypatch.setattr(ContactSheet, "save", lambda sheet, path: shown.extend(sheet.pictures()))
    rows = predict(data)
    assert (shown[0].file, shown[0].predicted, shown[0].truth) == ("cat/zz.jpg", "owl", "cat")
    assert not any(picture.is_wrong for picture in shown[1:])
    by_file = {row["file"]: float(row["probability_1"]) for row in rows}
    shares = [by_file[picture.file] for picture in shown[1:]]
    assert shares == sorted(shares) and len(shown) == 9


class TestWhatIsRefused:
    def test_nothing_is_written_where_no_image_can_be_read(self, predict, images, tmp_path):
        predict(images / "val")
        before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "x.jpg").write_bytes(b"broken")
        with pytest.raises(ZooError, match="none of the 1 images in .* can be read"):
            predict(tmp_path / "data")
        assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before

    def test_places_without_images(self, predict, tmp_path, images):
        (tmp_path / "empty").mkdir()
        with pytest.raises(UsageError, match="data_path .*nowhere does not exist; give --data_path IMAGE or FOLDER"):
            predict(tmp_path / "nowhere")
        with pytest.raises(ZooError, match=r"empty holds no images \(\.jpg"):
            predict(tmp_path / "empty")
        (tmp_path / "x.txt").touch()
        with pytest.raises(UsageError, match="an image has to end in .jpg"):
            predict(tmp_path / "x.txt")
        with pytest.raises(UsageError, match="infer_output_path is the folder of the images"):
            predict(images / "val", infer_output_path=str(images / "val"))

    def test_files_that_do_not_fit(self, predict, images, tmp_path):
        with pytest.raises(UsageError, match="takes images of 16 x 16; give --image_height 16 --image_width 16"):
            predict(images / "val", image_height=32)
        with pytest.raises(UsageError, match="eval_backend is mindspore and pretrain_ckpt"):
            predict(images / "val", eval_backend="mindspore")
        write_colour_classifier(tmp_path / "two.onnx", 1, ("cat", "dog"))
        with pytest.raises(ZooError, match="names 2 classes and gives scores of 3"):
            predict(images / "val", pretrain_ckpt=str(tmp_path / "two.onnx"))

    def test_scores_that_are_no_numbers(self, predict, images, tmp_path):
        write_colour_classifier(tmp_path / "nan.onnx", 1, scale=np.nan)
        with pytest.raises(ZooError, match="gives scores that are no numbers"):
            predict(images / "val", pretrain_ckpt=str(tmp_path / "nan.onnx"))
        assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())

    def test_a_folder_that_cannot_be_written(self, predict, images, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(ZooError, match="cannot write .*predictions.csv"):
            predict(images / "val", infer_output_path=str(tmp_path / "file"))


def test_results_among_the_images_are_no_images_next_time(predict, images, tmp_path):
    data = shutil.copytree(images / "val", tmp_path / "data")
    (tmp_path / "out").symlink_to(data / "results")
    (data / "results").mkdir()
    for _ in range(2):
        assert len(predict(data)) == 9
    assert (data / "results" / "contact_sheet.png").is_file()


def test_as_a_user_would(images, tmp_path):
    """infer.py from the command line: the results are in the working folder, the lines on stdout and nowhere else."""
    write_colour_classifier(tmp_path / "net.onnx", "batch")
    cv2.imwrite(str(tmp_path / "one.png"), np.zeros((20, 20, 3), np.uint8))
    flags = ["--eval_backend", "onnx", "--image_height", SIDE, "--image_width", SIDE, "--pretrain_ckpt", "net.onnx"]
    done = run_command(ROOT / "infer.py", "--platform", "CPU", *flags, "--data_path", images / "val", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert len((tmp_path / "infer_result" / "predictions.csv").read_text().splitlines()) == 10
    alone = run_command(
        ROOT / "infer.py", "--platform", "CPU", *flags, "--data_path", "one.png", "--top_k", "2", cwd=tmp_path
    )
    assert re.match(r"one\.png: \w+ 0\.\d\d, \w+ 0\.\d\d\n", alone.stdout), alone.stderr
