"""Run an exported network on this machine: ONNX by onnxruntime, MINDIR by MindSpore."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

Network = Callable[[np.ndarray], "list[np.ndarray]"]


def load_onnx(content: bytes) -> tuple[Network, list[str]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda image: session.run(None, {name: image}), [output.name for output in session.get_outputs()]


def load_mindir(content: bytes) -> tuple[Network, list[str]]:
    import mindspore as ms
    from mindspore import nn

    ms.set_context(mode=ms.GRAPH_MODE, device_target="CPU")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "network.mindir"
        file.write_bytes(content)
        net = nn.GraphCell(ms.load(str(file)))

    def run(image: np.ndarray) -> list[np.ndarray]:
        found = net(ms.Tensor(image))
        return [output.asnumpy() for output in (found if isinstance(found, (tuple, list)) else (found,))]

    return run, ["output"]


LOADERS = {"onnx": load_onnx, "mindir": load_mindir}
