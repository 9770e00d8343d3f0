"""An ONNX file, or a graph in memory, run by onnxruntime. No MindSpore here."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime

from src.engine.errors import ZooError, first_line
from src.engine.export.exported_model import META_KEY, ExportedModel

if TYPE_CHECKING:
    import onnx

MOST_AT_ONCE, PARTS_PER_THREAD = 4, 4  # images per call of the session, and calls that a thread should find


def store_metadata(model: Any, metadata: dict) -> None:
    """Put what the exporter knows into an onnx.ModelProto, where opening the file finds it as `meta`."""
    entry = model.metadata_props.add()
    entry.key, entry.value = META_KEY, json.dumps(metadata)


@dataclass(frozen=True)
class OnnxModel(ExportedModel):
    """An open file, or a graph in memory.

    `together` computes one image on all threads, `apart` one image per thread. Many images go faster apart: threads
    need not wait for each other in every layer, and what a layer leaves for the next stays in the cache.
    """

    file: str | bytes = field(repr=False)  # where it lies, or what it holds
    apart: onnxruntime.InferenceSession = field(repr=False)

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        """Inputs of the exported shape -> first output; a fixed batch size is met by splitting and padding."""
        size = self.batch_size or min(MOST_AT_ONCE, max(1, len(inputs) // (PARTS_PER_THREAD * self.threads)))
        starts = range(0, len(inputs), size)
        if len(starts) < 2 or self.threads < 2:
            return np.concatenate([self._part(self.together, inputs[start : start + size]) for start in starts])
        parts = self._pool.map(lambda start: self._part(self.apart, inputs[start : start + size]), starts)
        return np.concatenate(list(parts))

    def _part(self, session: onnxruntime.InferenceSession, part: np.ndarray) -> np.ndarray:
        name = session.get_inputs()[0].name
        return self.part(lambda inputs: session.run(None, {name: inputs})[0], part)

    @cached_property
    def together(self) -> onnxruntime.InferenceSession:
        return self.apart if self.threads == 1 else _session(self.file, self.threads)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.threads, "onnx")


def load(path: Path, threads: int) -> OnnxModel:
    """Open a file. Raises ZooError where onnxruntime cannot."""
    return _opened(path, str(path), threads)


def of_graph(model: onnx.ModelProto, threads: int) -> OnnxModel:
    """A graph that was written and is nowhere in a file, opened as one would be."""
    return _opened(Path(model.graph.name), model.SerializeToString(), threads)


def _opened(path: Path, file: str | bytes, threads: int) -> OnnxModel:
    apart = _session(file, 1)
    first, output = apart.get_inputs()[0], apart.get_outputs()[0]
    meta = json.loads(apart.get_modelmeta().custom_metadata_map.get(META_KEY, "{}"))
    return OnnxModel(path, threads, tuple(first.shape), tuple(output.shape), meta, file, apart)


def _session(file: str | bytes, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        reason = first_line(error)
        if isinstance(file, str):
            raise ZooError(f"{file} is no ONNX file that onnxruntime runs ({reason}); export it again") from error
        raise ZooError(f"onnxruntime cannot run the network ({reason}); give --cpu_kernels off") from error
