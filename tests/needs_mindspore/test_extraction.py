"""Features of the frozen backbone by onnxruntime and by MindSpore."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

pytest.importorskip("mindspore")

from src.classification import extraction
from src.cpu_kernels import rewrite
from src.engine import device
from src.engine.config import build, read_yaml
from src.engine.errors import ZooError
from src.engine.export import exporting
from src.mobilenetv2 import network
from src.mobilenetv2.classifier import MOBILENETV2
from src.mobilenetv2.config import Config
from tests.conftest import ROOT
from tests.networks import calm

IMAGES = np.random.default_rng(0).standard_normal((10, 3, 32, 32)).astype(np.float32)


def test_many_images_go_through_onnxruntime_with_the_same_features(monkeypatch):
    device.setup("CPU")
    small = {"width_mult": 0.35, "image_height": 32, "image_width": 32}
    cfg = dataclasses.replace(build(Config, read_yaml(ROOT / "default_config_cpu.yaml")), **small)
    net = calm(network.build(3, cfg.width_mult, 1))
    rewrite.accelerate(net)
    names, said = [p.name for p in net.get_parameters()], []
    few = extraction.predictor(MOBILENETV2, net, extraction.WORTH_EXPORTING - 1, cfg, said.append)(IMAGES)
    many = extraction.predictor(MOBILENETV2, net, extraction.WORTH_EXPORTING, cfg, said.append)
    expected = np.abs(few).max()
    assert expected > 0.1 and not said
    np.testing.assert_allclose(many(IMAGES), few, atol=1e-4 * expected)
    np.testing.assert_allclose(many(IMAGES[:1]), few[:1], atol=1e-4 * expected)
    assert [p.name for p in net.get_parameters()] == names

    for error, reason in (
        (ZooError("onnxruntime does not want to"), "onnxruntime does not want to"),
        (RuntimeError("no operator\n\n- C++ Call Stack:"), "exporting the backbone failed (RuntimeError: no operator)"),
        (OSError(28, "disk full"), "exporting the backbone failed (OSError: [Errno 28] disk full)"),
    ):

        def refuse(*_arguments, error=error, **_options):
            raise error

        monkeypatch.setattr(exporting, "export", refuse)
        again = extraction.predictor(MOBILENETV2, net, extraction.WORTH_EXPORTING, cfg, said.append)(IMAGES)
        np.testing.assert_array_equal(again, few)
        assert said == [f"features by MindSpore, because {reason}"]
        said.clear()
