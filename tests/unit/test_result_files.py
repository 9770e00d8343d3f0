"""Names and labels of the 310 application's results, and postprocess.py."""

from __future__ import annotations

import numpy as np
import pytest

from src.engine.errors import ZooError
from src.engine.export.result_files import names_of, read_labels
from tests.conftest import run_command, write_images


def test_names():
    files = ["cat/1.jpg", "cat/2.b.JPEG", "dog/1.jpg", "dog/3.jpg", "dog/3.png"]
    assert names_of(files) == ["cat/1", "2.b", "dog/1", "dog/3.jpg", "dog/3.png"]


def test_labels(tmp_path):
    file = tmp_path / "label.txt"
    file.write_text("a : 3\ncat/b.jpg:4\r\n\nc.d:5\n")
    assert read_labels(file) == {"a": 3, "cat/b.jpg": 4, "cat/b": 4, "c.d": 5}
    for content, part in [("a\n", "is not name:label"), ("a:1\na.jpg:2\n", "two labels"), ("", "holds no label")]:
        file.write_text(content)
        with pytest.raises(ZooError, match=part):
            read_labels(file)
    with pytest.raises(ZooError, match="cannot read the label file"):
        read_labels(tmp_path / "gone.txt")


def write_scores(folder, rows):
    for name, values in rows.items():
        file = folder / f"{name}_0.bin"
        file.parent.mkdir(parents=True, exist_ok=True)
        np.asarray(values, np.float32).tofile(file)


def postprocess(tmp_path):
    """As on a machine without MindSpore."""
    code = "import runpy, sys; sys.modules['mindspore'] = None; runpy.run_path('postprocess.py', run_name='__main__')"
    return run_command("-c", code, "--result_path", tmp_path / "out", "--label_path", tmp_path / "label.txt")


def test_accuracy(tmp_path):
    eye = np.eye(7)
    write_scores(tmp_path / "out", {"a": eye[2], "b.c": eye[3] - eye[1], "cat/d": eye[4] + 0.1 * eye[2]})
    (tmp_path / "label.txt").write_text("a:2\nb.c:1\ncat/d.jpg:2\ngone:0\n")
    done = postprocess(tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:2] == ["'Accuracy': 0.33333", "top-5: 0.66667, samples: 3"]


@pytest.mark.parametrize(
    "rows,labels,part",
    [
        ({"a": [1, 2]}, "b:1\n", "have no label"),
        ({"a": [1, 2]}, "a:2\n", "knows 2 classes only"),
        ({"a": [1, 2], "b": [1, 2, 3]}, "a:1\nb:1\n", "holds 3 scores, others 2"),
        ({"a": [1, np.nan]}, "a:1\n", "not finite"),
        ({"a": []}, "a:1\n", "no 32-bit floats"),
        ({}, "a:1\n", "is not a folder"),
    ],
)
def test_clear_errors(tmp_path, rows, labels, part):
    write_scores(tmp_path / "out", rows)
    (tmp_path / "label.txt").write_text(labels)
    done = postprocess(tmp_path)
    assert (done.returncode, part in done.stderr) == (1, True), done.stderr


def test_label_file(tmp_path):
    write_images(tmp_path / "val", 2)
    done = run_command("tools/make_label_file.py", tmp_path / "val", tmp_path / "label.txt")
    assert "6 images of 3 classes" in done.stdout
    lines = (tmp_path / "label.txt").read_text().splitlines()
    assert lines[:3] == ["cat/000:0", "cat/001:0", "dog/000:1"]
    (tmp_path / "net.mindir.json").write_text('{"class_to_index": {"ant": 0, "cat": 1, "dog": 2, "owl": 3}}')
    classes = ("--classes", tmp_path / "net.mindir.json")
    run_command("tools/make_label_file.py", tmp_path / "val", tmp_path / "label.txt", *classes)
    assert read_labels(tmp_path / "label.txt")["cat/000"] == 1
    done = run_command("tools/make_label_file.py", tmp_path / "gone", tmp_path / "label.txt")
    assert (done.returncode, "cannot list" in done.stderr) == (1, True)
