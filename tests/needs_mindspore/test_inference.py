"""The network in onnxruntime gives MindSpore's answers."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mindspore")

import mindspore as ms

from src.classification import inference
from src.cpu_kernels import rewrite
from src.engine import device
from src.engine.config import build, read_yaml
from src.engine.io import checkpoint
from src.mobilenetv2 import network
from src.mobilenetv2.classifier import MOBILENETV2
from src.mobilenetv2.config import Config
from src.mobilenetv2_quant.classifier import MOBILENETV2_QUANT
from tests.conftest import ROOT
from tests.networks import calm
from tests.waiting import wait_until

IMAGES = np.random.default_rng(0).standard_normal((5, 3, 40, 48)).astype(np.float32)
CLASSES = 7


def config(**changes) -> Config:
    changes = {"width_mult": 0.35, "image_height": 40, "image_width": 48, "num_workers": 2, **changes}
    return dataclasses.replace(build(Config, read_yaml(ROOT / "default_config_cpu.yaml")), **changes)


def make(cfg: Config) -> network.MobileNetV2:
    """A network with a number of its own in every place of every parameter; some factors of BN are negative."""
    device.setup("CPU")
    net = calm(network.build(CLASSES, cfg.width_mult, 1, output_stride=cfg.output_stride))
    rng = np.random.default_rng(2)
    for parameter in net.get_parameters():
        old = parameter.asnumpy()
        if parameter.name.endswith("gamma"):
            old = old * rng.choice([-1, 1, 1, 1], old.shape) * rng.uniform(0.8, 1.2, old.shape)
        elif parameter.name.endswith("moving_variance"):
            old = rng.uniform(0.5, 2, old.shape)
        elif not parameter.name.endswith("weight"):
            old = old + rng.normal(0, 0.1, old.shape)
        parameter.set_data(ms.Tensor(old.astype(np.float32)))
    return net


def assert_equal(found: np.ndarray, expected: np.ndarray) -> None:
    spread = np.abs(expected).max()
    assert spread > 0.1
    assert np.ptp(expected, axis=0).max() > 0.01 * spread, "all images have one answer, so that being equal says little"
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * spread)


@pytest.mark.parametrize(("width_mult", "output_stride"), [(0.25, 32), (0.35, 8), (1.0, 16), (1.4, 32)])
def test_onnxruntime_gives_mindspores_logits_and_features(width_mult, output_stride):
    cfg = config(width_mult=width_mult, output_stride=output_stride)
    net = make(cfg)
    stock = dataclasses.replace(cfg, cpu_kernels="off")
    for until_pooled in (False, True):
        expected = inference.predictor(MOBILENETV2, net, stock, until_pooled)(IMAGES)
        assert_equal(inference.predictor(MOBILENETV2, net, cfg, until_pooled)(IMAGES), expected)


def test_the_weights_of_now_count_and_cells_with_kernels_have_the_same_names():
    cfg = config()
    net = make(cfg)
    before = inference.predictor(MOBILENETV2, net, cfg)
    first = before(IMAGES)
    rewrite.accelerate(net)
    np.testing.assert_array_equal(inference.predictor(MOBILENETV2, net, cfg)(IMAGES), first)
    net.head.dense.bias.set_data(net.head.dense.bias + 1)
    assert_equal(inference.predictor(MOBILENETV2, net, cfg)(IMAGES), first + 1)
    np.testing.assert_array_equal(before(IMAGES), first)
    assert len(inference.predictor(MOBILENETV2, net, cfg)(IMAGES[:1])) == 1


def test_a_weight_that_is_no_number_is_not_hidden():
    cfg = config()
    net = make(cfg)
    weight = net.backbone.features[3].conv[0][0].weight
    broken = weight.asnumpy().copy()
    broken[0, 0] = np.nan
    weight.set_data(ms.Tensor(broken))
    assert np.isnan(inference.predictor(MOBILENETV2, net, cfg)(IMAGES)).all()


def test_an_evaluation_gives_its_threads_back():
    """A run evaluates after every epoch, each time with new weights."""
    cfg = config()
    net, many = make(cfg), np.concatenate([IMAGES] * 8)

    def threads() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    def evaluate() -> None:
        assert len(inference.predictor(MOBILENETV2, net, cfg)(many)) == len(many)

    evaluate()
    before = threads()
    for _ in range(3):
        evaluate()
    wait_until(lambda: threads() <= before, "as few threads as after the first evaluation", 30)


@pytest.mark.parametrize(
    ("model", "changes", "expected"),
    [
        (MOBILENETV2, {}, True),
        (MOBILENETV2, {"cpu_kernels": "on"}, True),
        (MOBILENETV2, {"cpu_kernels": "off"}, False),
        (MOBILENETV2, {"platform": "GPU"}, False),
        (MOBILENETV2_QUANT, {}, False),
    ],
)
def test_who_evaluates(model, changes, expected):
    assert inference.is_by_onnxruntime(model, config(**changes)) is expected


@pytest.mark.parametrize(
    "module",
    [
        "src.mobilenetv2.classifier",
        "src.mobilenetv2.onnx_graph",
        "src.mobilenetv2_quant.integer_graph",
        "src.segformer.export.onnx_graph",
    ],
)
def test_a_module_that_knows_mindspore_and_onnx_can_be_the_first_that_is_imported(module):
    ended = subprocess.run([sys.executable, "-c", f"import {module}"], cwd=ROOT, capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_the_graph_has_every_weight_and_no_normalisation_left():
    cfg = config()
    arrays = checkpoint.arrays_of(make(cfg).get_parameters())
    graph = MOBILENETV2.graph(arrays, cfg, {"key": 1}, False).graph
    kinds = [node.op_type for node in graph.node]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "Conv": 52, "Clip": 35, "Add": 10, "GlobalAveragePool": 1, "Flatten": 1, "Gemm": 1,
    }  # fmt: skip
    stored = sum(np.prod(tensor.dims) for tensor in graph.initializer) - 2 * kinds.count("Clip")
    trained = [name for name in arrays if name.endswith(("weight", "bias", "beta"))]
    assert stored == sum(arrays[name].size for name in trained)
