"""Soft targets of a teacher, the loss that learns them, and teachers that do not fit."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.needs_mindspore
ms = pytest.importorskip("mindspore")

import onnx  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from src.classification import distillation  # noqa: E402
from src.engine.config import build, read_yaml  # noqa: E402
from src.engine.errors import UsageError, ZooError  # noqa: E402
from src.engine.export.exported_model import META_KEY  # noqa: E402
from src.mobilenetv2.classifier import MOBILENETV2  # noqa: E402
from src.mobilenetv2.config import Config  # noqa: E402
from src.mobilenetv2.loss import cross_entropy  # noqa: E402
from tests.conftest import ROOT  # noqa: E402

CLASSES = {"a": 0, "b": 1, "c": 2}
IMAGES = np.random.default_rng(0).standard_normal((5, 3, 4, 4)).astype(np.float32)
WEIGHT = np.random.default_rng(1).standard_normal((48, 3)).astype(np.float32)


def configuration(teacher: Path, **changes) -> Config:
    file = ROOT / "default_config_cpu.yaml"
    changes = {"image_height": 4, "image_width": 4, "teacher": str(teacher), **changes}
    return dataclasses.replace(build(Config, read_yaml(file)), **changes)


def teacher_file(folder: Path, activation: str = "None", classes: dict | None = None, side: int = 4) -> Path:
    """Flatten and a matrix product, 48 numbers to 3 scores."""
    nodes = [helper.make_node("Flatten", ["image"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["logits"])]
    if activation != "None":
        nodes.append(helper.make_node(activation, ["logits"], ["scores"]))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, side, side])
    scores = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, ["batch", 3])
    graph = helper.make_graph(nodes, "teacher", [image], [scores], [numpy_helper.from_array(WEIGHT, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    entry = model.metadata_props.add()
    entry.key = META_KEY
    entry.value = json.dumps({"activation": activation, "class_to_index": CLASSES if classes is None else classes})
    if activation == "Softmax":
        model.metadata_props.pop()
    onnx.save(model, folder / f"{activation}.onnx")
    return folder / f"{activation}.onnx"


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


@pytest.mark.parametrize("activation", ["None", "Softmax"])
def test_soft_targets_are_those_of_the_logits(activation, tmp_path):
    """A softmax is seen in the scores, because files from elsewhere do not name it."""
    cfg = configuration(teacher_file(tmp_path, activation), distill_temperature=3.0)
    teacher = distillation.open_teacher(MOBILENETV2, cfg, CLASSES)
    expected = softmax(IMAGES.reshape(5, -1).astype(np.float64) @ WEIGHT / 3)
    np.testing.assert_allclose(teacher.soft_targets(IMAGES), expected, atol=1e-5)


@pytest.mark.parametrize(("changes", "error", "part"), [
    ({"classes": {"a": 0, "c": 1, "b": 2}}, ZooError, "has to know the same"),
    ({"classes": {"a": 0, "b": 1}}, ZooError, "has to know the same"),
    ({"activation": "Sigmoid"}, UsageError, "export the teacher with --activation None"),
])  # fmt: skip
def test_teachers_that_do_not_fit(changes, error, part, tmp_path):
    cfg = configuration(teacher_file(tmp_path, **changes))
    with pytest.raises(error, match=part):
        distillation.open_teacher(MOBILENETV2, cfg, CLASSES)


def test_images_of_another_size(tmp_path):
    cfg = configuration(teacher_file(tmp_path), image_height=8)
    with pytest.raises(UsageError, match="give --image_height 4"):
        distillation.open_teacher(MOBILENETV2, cfg, CLASSES)


def test_loss_and_gradient():
    """Hinton's formula in NumPy; the gradient of the taught part is alpha * T * (student - teacher) / N."""
    cfg = configuration(Path("x"), distill_alpha=0.25, distill_temperature=4.0)
    loss = distillation.loss_of(cross_entropy, cfg)
    rng = np.random.default_rng(2)
    logits, target = rng.standard_normal((5, 3)).astype(np.float32), np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1]]
    soft = softmax(rng.standard_normal((5, 3))).astype(np.float32)
    own = -(target * np.log(softmax(logits))).sum(1).mean()
    taught = -(soft * np.log(softmax(logits / 4))).sum(1).mean() * 16
    arguments = [ms.Tensor(array) for array in (logits, target, soft)]
    assert float(loss(*arguments).asnumpy()) == pytest.approx(0.75 * own + 0.25 * taught, rel=1e-5)
    expected = (0.75 * (softmax(logits) - target) + 0.25 * 4 * (softmax(logits / 4) - soft)) / 5
    np.testing.assert_allclose(ms.grad(loss)(*arguments).asnumpy(), expected, atol=1e-6)
