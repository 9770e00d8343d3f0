"""Runtimes of exported files, the optional one skipped where it is not installed."""

from __future__ import annotations

import importlib.util

import pytest

HAS_OPENVINO = importlib.util.find_spec("openvino") is not None
NEEDS_OPENVINO = pytest.mark.skipif(not HAS_OPENVINO, reason="OpenVINO is not installed: pip install openvino")
BACKENDS = ["onnx", pytest.param("openvino", marks=NEEDS_OPENVINO)]
