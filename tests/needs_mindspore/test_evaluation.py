"""Scoring an exported file: how images reach it, and that each counts once."""

from __future__ import annotations

import dataclasses
import shutil

import pytest

pytestmark = pytest.mark.needs_mindspore
pytest.importorskip("mindspore")

from src.classification import evaluation  # noqa: E402
from src.engine.config import build, read_yaml  # noqa: E402
from src.engine.data import stream  # noqa: E402
from src.engine.errors import ZooError  # noqa: E402
from src.engine.export import onnx_model  # noqa: E402
from src.mobilenetv2.classifier import MOBILENETV2  # noqa: E402
from src.mobilenetv2.config import Config  # noqa: E402
from tests.conftest import CLASSES, ROOT  # noqa: E402
from tests.onnx_files import SIDE, write_colour_classifier  # noqa: E402


@pytest.mark.parametrize(("fixed", "parts"), [(1, [1] * 12), (3, [3] * 4)])
def test_a_file_of_fixed_batch_size_gets_its_parts_side_by_side(images, tmp_path, monkeypatch, capsys, fixed, parts):
    """Nine images, batch_size 4: three batches of 4 single images, or two batches of 2 * 3; the last one is padded."""
    write_colour_classifier(tmp_path / "net.onnx", fixed)
    monkeypatch.setattr(stream, "usable_threads", lambda wanted: 2)
    given, whole = [], onnx_model.OnnxModel._part

    def spy(model, session, part):
        given.append((session is not model.together, len(part)))
        return whole(model, session, part)

    monkeypatch.setattr(onnx_model.OnnxModel, "_part", spy)
    cfg = dataclasses.replace(
        build(Config, read_yaml(ROOT / "default_config_cpu.yaml")),
        **{"image_height": SIDE, "image_width": SIDE, "batch_size": 4, "eval_backend": "onnx"},
        **{"dataset_path": str(images / "val"), "pretrain_ckpt": str(tmp_path / "net.onnx")},
    )
    assert evaluation.run(MOBILENETV2, cfg, None) == 0
    assert given == [(True, length) for length in parts]
    said = capsys.readouterr().out
    assert "result: {'acc': 1.0}" in said and "samples: 9 of 9" in said


@pytest.mark.parametrize(
    ("names", "held_out", "said"),
    [
        (CLASSES, CLASSES, ("", "result: {'acc': 1.0}")),
        (None, CLASSES, ("does not name its classes, so they are the folders, sorted by name", "result: {'acc': 1.0}")),
        (CLASSES, CLASSES[1:], ("", "result: {'acc': 1.0}")),
        (None, CLASSES[1:], ZooError("holds 2 classes and .*net.onnx has 3; evaluate on the classes it was trained")),
        (("cow", "dog", "owl"), CLASSES, ZooError("holds the class folder 'cat', which the checkpoint does not know")),
    ],
)
def test_the_classes_of_a_file_and_of_the_data(images, tmp_path, capsys, names, held_out, said):
    write_colour_classifier(tmp_path / "net.onnx", 1, names)
    for name in held_out:
        shutil.copytree(images / "val" / name, tmp_path / "val" / name)
    cfg = dataclasses.replace(
        build(Config, read_yaml(ROOT / "default_config_cpu.yaml")),
        **{"image_height": SIDE, "image_width": SIDE, "eval_backend": "onnx", "dataset_path": str(tmp_path / "val")},
        pretrain_ckpt=str(tmp_path / "net.onnx"),
    )
    if isinstance(said, ZooError):
        with pytest.raises(ZooError, match=str(said)):
            evaluation.run(MOBILENETV2, cfg, None)
        return
    assert evaluation.run(MOBILENETV2, cfg, None) == 0
    told = capsys.readouterr().out
    assert all(text in told for text in said) and ("does not name" in told) == (names is None)
