"""benchmarks.pictures: the strip of README, drawn from small quick starts made up here."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from benchmarks import pictures, rows
from benchmarks.results import Results
from tests.conftest import ROOT

WIDTH, HEIGHT, TITLE = 128, 64, 28
LARGEST = 150_000  # bytes of a picture in the documents


def run_of(folder, score: str) -> None:
    lines = [{"kind": "epoch", "at": at, "loss": 2 / at} for at in (1, 2, 3)]
    lines += [{"kind": "eval", "at": at, score: at / 4} for at in (1, 2, 3)]
    (folder / "run").mkdir(parents=True)
    (folder / pictures.METRICS).write_text("".join(f"{json.dumps(line)}\n" for line in lines))


@pytest.fixture
def quick_starts(tmp_path):
    """Both quick starts' files; the scene at row r and column c of the grid is grey of 60 r + 20 c."""
    run_of(tmp_path / pictures.DIGITS, "top1")
    run_of(tmp_path / pictures.STREETS, "miou")
    grid = np.full((TITLE + 4 * HEIGHT, 3 * WIDTH, 3), 255, np.uint8)
    for row in range(4):
        for column in range(3):
            top, left = TITLE + row * HEIGHT, column * WIDTH
            grid[top : top + HEIGHT, left : left + WIDTH] = 60 * row + 20 * column
    Image.fromarray(grid).save(tmp_path / pictures.PICTURES)
    return tmp_path


def drawn(folder, *more: str) -> tuple[int, np.ndarray]:
    out = folder / "strip.png"
    status = pictures.main(["--folder", str(folder), "--out", str(out), *more])
    return status, np.array(Image.open(out).convert("RGB")) if out.is_file() else np.empty(0)


def test_a_scene_is_cut_out_of_the_grid(quick_starts):
    found = [np.array(picture) for picture in pictures.scene(quick_starts / pictures.PICTURES)]
    assert [picture.shape for picture in found] == [(HEIGHT, WIDTH, 3)] * 3
    assert [np.unique(picture).tolist() for picture in found] == [[60 * pictures.SCENE + 20 * at] for at in range(3)]


def test_the_chart_is_there_once_something_was_measured(quick_starts):
    nothing = quick_starts / "none.jsonl"
    status, without = drawn(quick_starts, "--results", str(nothing))
    assert status == 0 and pictures.speeds(nothing) == []
    stored = Results(quick_starts / "results.jsonl", {"processor": "Test CPU", "cores": 2})
    for contender in rows.ROWS["train"].contenders:
        speed = 8.0 if contender.environment == rows.OURS else 4.0
        versions = dict.fromkeys(contender.packages, "1.0")
        stored.add(contender.key, 1, {"answer": {"images_per_s": speed, "versions": versions}})
    assert [(name, ratio) for name, ratio, _ in pictures.speeds(stored.file)] == [("training, 224 x 224", 2.0)]
    status, with_chart = drawn(quick_starts, "--results", str(stored.file))
    assert status == 0 and with_chart.shape == without.shape and (with_chart != without).any()


@pytest.mark.parametrize("missing", [pictures.PICTURES, pictures.STREETS / pictures.METRICS, pictures.DIGITS / "run"])
def test_what_is_missing_is_named_and_nothing_is_written(quick_starts, missing, capsys):
    (quick_starts / missing).rename(quick_starts / "elsewhere")
    status, picture = drawn(quick_starts)
    assert status == 2 and picture.size == 0
    assert str(quick_starts / missing) in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "images").iterdir()), ids=lambda path: path.name)
def test_pictures_of_the_documents_are_small_and_have_a_background(path):
    """A transparent background would put black letters on a dark page."""
    assert path.stat().st_size < LARGEST
    assert np.array(Image.open(path).convert("RGBA"))[..., 3].min() == 255
