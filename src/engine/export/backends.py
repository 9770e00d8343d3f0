"""What runs an exported file: onnxruntime or OpenVINO, by the name that eval_backend gives. No MindSpore here."""

from __future__ import annotations

from pathlib import Path

from src.engine.export import onnx_model, openvino_model
from src.engine.export.exported_model import ExportedModel

RUNTIMES = {"onnx": onnx_model.load, "openvino": openvino_model.load}


def load(backend: str, path: Path, threads: int) -> ExportedModel:
    """Open a file. Raises ZooError where that cannot be."""
    return RUNTIMES[backend](path, threads)
