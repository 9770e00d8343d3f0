"""An integer ONNX file: proof that it gives the network's answers, the kernels that run it, its report"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from src.engine.errors import ZooError
from src.engine.export import exporting
from src.engine.io import files
from src.quantisation import layer_report
from src.quantisation.layer_report import Row

INTEGER_KERNELS = ("QLinearConv", "QGemm", "QLinearMatMul", "QLinearAdd", "QLinearGlobalAveragePool")
TO_FLOAT = ("MatMulIntegerToFloat",)  # a product of whole numbers that leaves them; counted as an integer kernel
FLOAT_KERNELS = ("Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul")


def write(
    model: onnx.ModelProto,
    network: Callable[[np.ndarray], np.ndarray],
    path: Path,
    inputs: dict[str, np.ndarray],
    tolerance: float,
) -> dict[str, float]:
    """Put the file in place if it gives the network's scores; the largest difference per named input.

    `tolerance` is a share of the spread of the network's scores: sums that are rounded differently move some by a step.
    """
    found = {}

    def checked(temporary: Path) -> None:
        onnx.save(model, str(temporary))
        predict = exporting.reload(temporary)
        for kind, array in inputs.items():
            scores = network(array)
            found[kind] = float(np.abs(scores - predict(array)).max())
            if not found[kind] <= tolerance * np.ptp(scores):
                raise ZooError(f"{path.name} differs from the network by {found[kind]:.3g} on {kind} input; not kept")

    files.replace_file(path, checked)
    return found


def integer_kernels(path: Path, no_layers: Collection[str] = ()) -> dict[str, int]:
    """How many kernels of which kind onnxruntime chooses for the file on this machine.

    `no_layers` are results of products that belong to no layer and are meant to be computed in floats.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    chosen = path.with_name(f"{files.UNFINISHED}{path.name}")
    options.optimized_model_filepath = str(chosen)
    try:
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        nodes = onnx.load(str(chosen)).graph.node
        counted = Counter(node.op_type for node in nodes if node.output[0] not in no_layers)
    finally:
        chosen.unlink(missing_ok=True)
    found = {name: counted[name] for name in (*INTEGER_KERNELS, *TO_FLOAT) if counted[name]}
    return {**found, "layers in float": sum(counted[name] for name in FLOAT_KERNELS)}


def tell_kernels(path: Path, no_layers: Collection[str] = ()) -> None:
    """Say what onnxruntime makes of the file; `no_layers` as in integer_kernels."""
    counted = ", ".join(f"{count} {name}" for name, count in integer_kernels(path, no_layers).items())
    print(f"onnxruntime's integer kernels: {counted}")


def write_report(rows: Iterable[Row], path: Path, wanted: str) -> None:
    """The report of the file `path`, as the key report_path wants it: there, or beside the file where it is empty."""
    report = Path(wanted).expanduser() if wanted else path.with_name(f"{path.stem}_layers")
    for written in layer_report.write(list(rows), report):
        print(f"report per layer in {written}")
