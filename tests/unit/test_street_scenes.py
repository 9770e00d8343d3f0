"""Drawn street scenes: the same for the same arguments, and valid annotations."""

import json

import numpy as np
import pytest

import quickstart_segformer
from src.segformer.data import dataset, polygons
from src.segformer.data.labels import BY_NAME
from street_scenes.scene import draw
from tests.conftest import run_command


def make(out, *flags):
    return run_command("examples/make_street_scenes.py", str(out), *flags)


def files(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_scenes_repeat_and_vary():
    first, again, other = (draw(np.random.default_rng(seed), 64, 128) for seed in (1, 1, 2))
    assert (first[0] == again[0]).all() and first[1] == again[1]
    assert (first[0] != other[0]).mean() > 0.5


@pytest.mark.parametrize("seed", range(6))
def test_annotations_follow_the_schema_and_cover_the_picture(seed):
    picture, annotation = draw(np.random.default_rng(seed), 96, 160)
    assert (picture.shape, picture.dtype) == ((96, 160, 3), np.uint8)
    assert (annotation["imgHeight"], annotation["imgWidth"]) == (96, 160)
    for entry in json.loads(json.dumps(annotation["objects"])):
        assert entry["label"].replace("cargroup", "car") in BY_NAME
        assert all(type(value) is int for point in entry["polygon"] for value in point)
    mask = polygons.draw(annotation)
    present = set(np.unique(mask).tolist())
    assert {0, 1, 8, 10} <= present  # road, sidewalk, vegetation, sky
    assert (mask == 255).mean() < 0.15
    assert picture[0].min(axis=1).max() > 40  # the sky reaches the edge


def test_the_command_resumes_and_its_folder_trains(tmp_path):
    root, flags = tmp_path / "my scenes", ("--train", "2", "--val", "1", "--size", "64x128")
    assert "3 scenes drawn, 0 were there" in make(root, *flags).stdout
    before = files(root)
    next(root.rglob("*_polygons.json")).unlink()
    assert "1 scenes drawn, 2 were there" in make(root, *flags).stdout
    assert files(root) == before
    refused = make(root, *flags, "--seed", "2")
    assert (refused.returncode, "holds other files or other scenes" in refused.stderr) == (2, True)
    assert run_command("tools/convert_dataset.py", str(root), "--nproc", "1").returncode == 0
    for split, count in (("train", 2), ("val", 1)):
        pairs = dataset.find_pairs(str(root), split)
        assert len(pairs) == count
        assert pairs.read(0)[0].shape == (64, 128, 3)


@pytest.mark.parametrize("flags", [("--size", "64"), ("--size", "8x9"), ("--train", "-1"), ("--trains", "1")])
def test_wrong_usage(tmp_path, flags):
    result = make(tmp_path / "out", *flags)
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("miou", "same", "status", "words"),
    [
        (0.649, 1.0, 0, ""),
        (0.6, 1.0, 0, ""),
        (0.5999, 1.0, 1, "error: mIoU is 0.5999, less than 0.60; remove quickstart_segformer and run"),
        (0.649, 0.99, 1, "error: scenes.onnx finds the network's class at 99.000 % of the pixels, less than 99.9 %"),
    ],
)
def test_a_quick_start_that_learned_too_little_ends_with_status_1(
    monkeypatch, tmp_path, capsys, miou, same, status, words
):
    scores = tmp_path / "scores.json"
    scores.write_text(json.dumps({"miou": miou}))
    monkeypatch.setattr(quickstart_segformer, "SCORES", scores)
    monkeypatch.setattr(quickstart_segformer, "COMMANDS", ())
    monkeypatch.setattr(quickstart_segformer, "compare", lambda: {"scenes.mindir": 1.0, "scenes.onnx": same})
    monkeypatch.setattr(quickstart_segformer, "summary", lambda scores, agree, seconds: "table")
    monkeypatch.setattr(quickstart_segformer.environment, "prepare", lambda: None)
    monkeypatch.chdir(tmp_path)
    assert quickstart_segformer.main([]) == status
    output = capsys.readouterr()
    assert output.out.endswith("table\n")
    assert output.err.startswith(words)
    assert output.err.count("\n") == (1 if words else 0)
