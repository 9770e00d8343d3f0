"""Export to integers: the ONNX file, the proof that it gives the network's answers, and the report per layer."""

from __future__ import annotations

from pathlib import Path

from src.classification import conversion, dataset
from src.engine import loop
from src.engine.data.image_folder import EVAL_FOLDERS, scan
from src.engine.export import exporting
from src.engine.export.exporting import BATCH_NAME
from src.engine.io.checkpoint import Checkpoint
from src.mobilenetv2.network import MobileNetV2
from src.mobilenetv2_quant.classifier import MOBILENETV2_QUANT
from src.mobilenetv2_quant.config import Config
from src.mobilenetv2_quant.integer_graph import Writer
from src.quantisation import integer_file, layer_report

TOLERANCE = 0.2  # share of the spread of the network's scores; sums that are rounded differently move some by a step


def run(net: MobileNetV2, simulated: MobileNetV2, checkpoint: Checkpoint, cfg: Config) -> int:
    """Write file and report, and say what onnxruntime makes of the file.

    `net` is written; `simulated` is the same network in its fastest form, which the file has to agree with.
    """
    simulated.set_train(False)
    shape = (cfg.batch_size_export, 3, cfg.image_height, cfg.image_width)
    writer = Writer(cfg.onnx_target, cfg.weight_bits)
    writer.network(net)
    batch = BATCH_NAME if cfg.dynamic_batch else shape[0]
    model = writer.model(shape, net.head.dense.weight.shape[0], batch, conversion.metadata(checkpoint, cfg))
    file = Path(cfg.file_name).expanduser()
    path = file if file.suffix == ".onnx" else file.with_name(file.name + ".onnx")
    found = integer_file.write(
        model, loop.predictor(simulated), path, conversion.inputs(MOBILENETV2_QUANT, cfg), TOLERANCE
    )
    exporting.tell(path, found)
    if cfg.weight_bits < 8:
        print(f"weights of {cfg.weight_bits} bits are stored as {'INT4' if writer.graph.stores_int4 else 'int8'}")
    if writer.coarser:
        print(f"{writer.coarser} channels have coarser weights than trained, so that their biases fit into 32 bits")
    if writer.clipped:
        remedy = "quant_method qat" if writer.graph.is_for_tensorrt else "activation_symmetric False"
        print(
            f"{writer.clipped} convolutions run in float: the grid after their ReLU6 does not begin at 0 and end by 6; "
            f"{remedy} gives integers"
        )
    integer_file.tell_kernels(path)
    data = scan(cfg.dataset_path, EVAL_FOLDERS) if cfg.dataset_path else None
    images = dataset.example_batch(data, cfg.report_images, MOBILENETV2_QUANT.transforms, cfg)
    integer_file.write_report(layer_report.measure(model, writer, images), path, cfg.report_path)
    return 0
