"""Batches of any size through an ONNX file, on one thread and on several, in every runtime."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from src.engine.errors import ZooError
from src.engine.export import backends, onnx_model
from tests.runtimes import BACKENDS, HAS_OPENVINO

WEIGHT = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)


def write(path: Path, batch: int | str) -> Path:
    """A matrix product as an ONNX file, for `batch` rows or any number of them."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 3])],
        [numpy_helper.from_array(WEIGHT, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)])
    model.ir_version = 8
    helper.set_model_props(model, {onnx_model.META_KEY: json.dumps({"class_to_index": {"a": 0, "b": 1, "c": 2}})})
    onnx.save(model, str(path))
    return path


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch", ["batch", 1, 4])
@pytest.mark.parametrize("count", [1, 2, 5, 33])
def test_every_row_has_its_answer(tmp_path, batch, count, threads, backend):
    model = backends.load(backend, write(tmp_path / "m.onnx", batch), threads)
    assert model.batch_size == (None if batch == "batch" else batch)
    assert model.outputs == 3 and model.class_to_index["b"] == 1
    rows = np.random.default_rng(count).standard_normal((count, 6)).astype(np.float32)
    np.testing.assert_allclose(model.predict(rows), rows @ WEIGHT, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(model.predict(rows), model.predict(rows))


@pytest.mark.parametrize("backend", BACKENDS)
def test_answers_stay_what_they_are_when_the_next_ones_are_computed(tmp_path, backend):
    model = backends.load(backend, write(tmp_path / "m.onnx", 2), 1)
    first = model.predict(np.ones((2, 6), np.float32))
    model.predict(np.zeros((2, 6), np.float32))
    np.testing.assert_allclose(first, np.ones((2, 6)) @ WEIGHT, rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_file_that_is_no_model_is_named(tmp_path, backend):
    (tmp_path / "m.onnx").write_text("no model")
    with pytest.raises(ZooError, match=r"m\.onnx is no ONNX file"):
        backends.load(backend, tmp_path / "m.onnx", 1)


@pytest.mark.skipif(HAS_OPENVINO, reason="OpenVINO is installed")
def test_a_runtime_that_is_missing_is_asked_for_by_name(tmp_path):
    with pytest.raises(ZooError, match="OpenVINO is not installed; run: pip install openvino, or use"):
        backends.load("openvino", write(tmp_path / "m.onnx", 1), 1)
