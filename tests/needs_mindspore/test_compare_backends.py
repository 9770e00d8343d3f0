"""tools/compare_backends.py on files with known answers: the rows of its table, and what it refuses."""

from __future__ import annotations

import re

import pytest
from PIL import Image

pytestmark = pytest.mark.needs_mindspore
pytest.importorskip("mindspore")

from tests.conftest import ROOT, run_command  # noqa: E402
from tests.onnx_files import SIDE, write_colour_classifier  # noqa: E402
from tests.runtimes import HAS_OPENVINO  # noqa: E402
from tools import compare_backends  # noqa: E402

FLAGS = ["--platform", "CPU", "--image_height", str(SIDE), "--image_width", str(SIDE), "--trials", "10"]
ROW = r"\| (.+) \| (onnxruntime|OpenVINO) \| ([\d.]+) \| (\d+) of (\d+) \| [\d.]+ \([\d.]+, [\d.]+\) \| [\d.]+ \|"


def test_a_row_for_each_file_and_runtime(images, tmp_path, capsys):
    """The second file finds the same class for all images, the third one the opposite order's."""
    write_colour_classifier(tmp_path / "a.onnx", 1)
    write_colour_classifier(tmp_path / "b.onnx", "batch", scale=2.0)
    write_colour_classifier(tmp_path / "c.onnx", 4, scale=-1.0)
    (images / "val" / "cat" / "bad.jpg").write_bytes(b"broken")
    files = [str(tmp_path / f"{name}.onnx") for name in "abc"]
    try:
        picture = ["--picture", str(tmp_path / "compared.png")]
        assert compare_backends.main([*files, *FLAGS, "--dataset_path", str(images / "val"), *picture]) == 0
    finally:
        (images / "val" / "cat" / "bad.jpg").unlink()
    said = capsys.readouterr().out
    rows = [re.fullmatch(ROW, line).groups() for line in said.splitlines() if line.endswith("0.00 |")]
    runtimes = ["onnxruntime", "OpenVINO"] if HAS_OPENVINO else ["onnxruntime"]
    assert [row[:2] for row in rows] == [(f"{name}.onnx", runtime) for name in "abc" for runtime in runtimes]
    assert {row[2:] for row in rows if row[0] != "c.onnx"} == {("1.0000", "9", "9")}
    assert {row[2:] for row in rows if row[0] == "c.onnx"} == {("0.0000", "0", "9")}
    assert said.count("skipped cat/bad.jpg") == 1
    with Image.open(tmp_path / "compared.png") as drawn:
        assert len(drawn.convert("RGB").resize((400, 200)).getcolors(100_000)) > 10
    assert ("OpenVINO is not installed" in said) == (not HAS_OPENVINO)


def test_a_file_that_does_not_name_its_classes(images, tmp_path, capsys):
    for name, named in (("a", ("cat", "dog", "owl")), ("b", None)):
        write_colour_classifier(tmp_path / f"{name}.onnx", 1, named)
    files = [str(tmp_path / f"{name}.onnx") for name in "ab"]
    for order in (files, files[::-1]):
        assert compare_backends.main([*order, *FLAGS, "--dataset_path", str(images / "val")]) == 0
        assert capsys.readouterr().out.count("| 1.0000 | 9 of 9 |") == (4 if HAS_OPENVINO else 2)


@pytest.mark.parametrize("names", [("cow", "dog", "owl"), ("dog", "cat", "owl")])
def test_files_of_other_classes(images, tmp_path, capsys, names):
    write_colour_classifier(tmp_path / "a.onnx", 1)
    write_colour_classifier(tmp_path / "b.onnx", 1, names)
    files = [str(tmp_path / f"{name}.onnx") for name in "ab"]
    assert compare_backends.main([*files, *FLAGS, "--dataset_path", str(images / "val")]) == 1
    said = capsys.readouterr()
    assert f"class 0 is {names[0]!r} in {files[1]} and 'cat' in {files[0]}" in said.err and "|" not in said.out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "no file is named; give a checkpoint and files exported from it, before the flags"),
        (["absent.onnx"], "absent.onnx is no checkpoint and no exported file"),
        (["{here}/text.txt"], "text.txt is no checkpoint and no exported file"),
        (["{here}/a.onnx", "--trials", "9"], "trials is 9; it has to be at least 10"),
        (["{here}/a.onnx", "--picture", "a.jpg"], "picture is a.jpg; it is drawn as PNG, so give FILE.png"),
        (["{here}/a.onnx", "--wrong", "1", "--platform", "CPU"], "unknown flag '--wrong'"),
    ],
)
def test_what_is_refused(arguments, sentence, tmp_path):
    (tmp_path / "text.txt").touch()
    write_colour_classifier(tmp_path / "a.onnx", 1)
    given = [word.format(here=tmp_path) for word in arguments]
    done = run_command(ROOT / "tools" / "compare_backends.py", *given, cwd=tmp_path)
    assert (done.returncode, done.stdout.replace("\n", "")[:4]) in ((2, ""), (2, "note"))
    assert sentence in done.stderr and done.stderr.count("\n") == 1
