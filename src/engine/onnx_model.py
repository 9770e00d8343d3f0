"""An exported ONNX file run by onnxruntime. No MindSpore here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime

from src.engine.errors import ZooError, first_line

META_KEY = "zoo_meta"


@dataclass(frozen=True)
class OnnxModel:
    """An open session; `batch_size` is None where the file takes any, `meta` is what the exporter knew."""

    session: onnxruntime.InferenceSession
    batch_size: int | None
    outputs: int
    meta: dict

    @property
    def class_to_index(self) -> dict[str, int] | None:
        return self.meta.get("class_to_index")

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        """Inputs of the exported shape -> first output; a fixed batch size is met by splitting and padding."""
        name = self.session.get_inputs()[0].name
        if self.batch_size is None:
            return self.session.run(None, {name: inputs})[0]
        results = []
        for start in range(0, len(inputs), self.batch_size):
            part = inputs[start : start + self.batch_size]
            filling = np.zeros((self.batch_size - len(part), *part.shape[1:]), part.dtype)
            results.append(self.session.run(None, {name: np.concatenate([part, filling])})[0][: len(part)])
        return np.concatenate(results)


def load(path: Path, threads: int) -> OnnxModel:
    """Open a file. Raises ZooError where onnxruntime cannot."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ZooError(
            f"{path} is no ONNX file that onnxruntime runs ({first_line(error)}); export it again"
        ) from error
    batch_size = session.get_inputs()[0].shape[0]
    meta = json.loads(session.get_modelmeta().custom_metadata_map.get(META_KEY, "{}"))
    return OnnxModel(
        session, batch_size if isinstance(batch_size, int) else None, session.get_outputs()[0].shape[1], meta
    )
