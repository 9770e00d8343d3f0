"""Export to integers: the ONNX file, the proof that it gives the network's answers, and the report per layer."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import mindspore as ms
import numpy as np
import onnx
import onnxruntime

from src.classification import conversion, dataset
from src.engine.data.image_folder import EVAL_FOLDERS, scan
from src.engine.errors import ZooError
from src.engine.export import exporting
from src.engine.export.exporting import BATCH_NAME
from src.engine.io import files
from src.engine.io.checkpoint import Checkpoint
from src.mobilenetv2.network import MobileNetV2
from src.mobilenetv2_quant import layer_report
from src.mobilenetv2_quant.classifier import MOBILENETV2_QUANT
from src.mobilenetv2_quant.config import Config
from src.mobilenetv2_quant.integer_graph import Writer

TOLERANCE = 0.2  # share of the spread of the network's scores; sums that are rounded differently move some by a step
INTEGER_KERNELS = ("QLinearConv", "QGemm", "QLinearAdd", "QLinearGlobalAveragePool")


def run(net: MobileNetV2, simulated: MobileNetV2, checkpoint: Checkpoint, cfg: Config) -> int:
    """Write file and report, and say what onnxruntime makes of the file.

    `net` is written; `simulated` is the same network in its fastest form, which the file has to agree with.
    """
    simulated.set_train(False)
    shape = (cfg.batch_size_export, 3, cfg.image_height, cfg.image_width)
    writer = Writer()
    writer.network(net)
    batch = BATCH_NAME if cfg.dynamic_batch else shape[0]
    model = writer.graph.model(shape, net.head.dense.weight.shape[0], batch, conversion.metadata(checkpoint, cfg))
    file = Path(cfg.file_name).expanduser()
    path = file if file.suffix == ".onnx" else file.with_name(file.name + ".onnx")
    found = write(model, simulated, path, conversion.inputs(MOBILENETV2_QUANT, cfg))
    exporting.tell(path, found)
    if writer.coarser:
        print(f"{writer.coarser} channels have coarser weights than trained, so that their biases fit into 32 bits")
    if writer.clipped:
        print(
            f"{writer.clipped} convolutions run in float: the grid after their ReLU6 does not begin at 0 and end by 6; "
            "leave activation_symmetric False for integers"
        )
    kernels = integer_kernels(path)
    print("onnxruntime's integer kernels: " + ", ".join(f"{count} {name}" for name, count in kernels.items()))
    data = scan(cfg.dataset_path, EVAL_FOLDERS) if cfg.dataset_path else None
    images = dataset.example_batch(data, (cfg.report_images, *shape[1:]), MOBILENETV2_QUANT.transforms)
    rows = layer_report.measure(model, writer, images)
    report = Path(cfg.report_path).expanduser() if cfg.report_path else path.with_name(f"{path.stem}_layers")
    for written in layer_report.write(rows, report):
        print(f"report per layer in {written}")
    return 0


def write(model: onnx.ModelProto, net: MobileNetV2, path: Path, inputs: dict[str, np.ndarray]) -> dict[str, float]:
    """Put the file in place if it gives the network's scores; the largest difference per named input."""
    found = {}

    def checked(temporary: Path) -> None:
        onnx.save(model, str(temporary))
        predict = exporting.reload(temporary)
        for kind, array in inputs.items():
            scores = net(ms.Tensor(array)).asnumpy()
            found[kind] = float(np.abs(scores - predict(array)).max())
            if not found[kind] <= TOLERANCE * np.ptp(scores):
                raise ZooError(f"{path.name} differs from the network by {found[kind]:.3g} on {kind} input; not kept")

    files.replace_file(path, checked)
    return found


def integer_kernels(path: Path) -> dict[str, int]:
    """How many kernels of which kind onnxruntime chooses for the file on this machine."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    chosen = path.with_name(f"{files.UNFINISHED}{path.name}")
    options.optimized_model_filepath = str(chosen)
    try:
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        counted = Counter(node.op_type for node in onnx.load(str(chosen)).graph.node)
    finally:
        chosen.unlink(missing_ok=True)
    others = sum(counted[name] for name in ("Conv", "FusedConv", "Gemm", "MatMul"))
    return {**{name: counted[name] for name in INTEGER_KERNELS}, "layers in float": others}
