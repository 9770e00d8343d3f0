"""An exported ONNX file run by OpenVINO, which is optional. No MindSpore here."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from src.engine.errors import ZooError, first_line
from src.engine.export.exported_model import META_KEY, ExportedModel


@dataclass(frozen=True)
class OpenVinoModel(ExportedModel):
    """An open file, computing in float32 what is not in integers."""

    run: Callable[[np.ndarray], np.ndarray]

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        """Inputs of the exported shape -> first output; a fixed batch size is met by splitting and padding."""
        size = self.batch_size or len(inputs)
        return np.concatenate([self.part(self.run, inputs[i : i + size]) for i in range(0, len(inputs), size)])


def load(path: Path, threads: int) -> OpenVinoModel:
    """Open a file. Raises ZooError where OpenVINO is not installed or cannot."""
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise ZooError(
            "eval_backend is openvino, and OpenVINO is not installed; run: pip install openvino, "
            "or use --eval_backend onnx"
        ) from error
    import onnx  # here, because MindSpore, imported after it, would not find the protobuf it needs

    # Without a hint, processors that know bfloat16 compute in it, and answers differ from machine to machine.
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    try:
        read = openvino.Core().read_model(str(path))
        compiled = openvino.Core().compile_model(read, "CPU", settings)
        entries = {entry.key: entry.value for entry in onnx.load(str(path), load_external_data=False).metadata_props}
    except Exception as error:
        raise ZooError(f"{path} is no ONNX file that OpenVINO runs ({first_line(error)}); export it again") from error
    meta = json.loads(entries.get(META_KEY, "{}"))

    def run(part: np.ndarray) -> np.ndarray:
        return compiled([part])[0].copy()  # the memory belongs to the request, which the next call writes

    return OpenVinoModel(path, threads, sides(read.inputs[0]), sides(read.outputs[0]), meta, run)


def sides(port: Any) -> tuple[int | None, ...]:
    """The shape of an input or output; None for what is free."""
    return tuple(None if side.is_dynamic else side.get_length() for side in port.get_partial_shape())
