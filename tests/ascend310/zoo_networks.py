"""The zoo's own networks, exported as a user would export them; one MindSpore process makes them all.

python -m tests.ascend310.zoo_networks DIGITS PICTURES OUT   (digits: class folders; pictures: a SegFormer data folder)
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
from sklearn.linear_model import RidgeClassifier

from src import zoo
from src.classification.config import Data
from src.engine import device
from src.engine.data import images
from src.engine.data.image_folder import scan
from src.engine.io import checkpoint
from src.mobilenetv2 import dataset
from src.mobilenetv2 import network as mobilenetv2
from src.mobilenetv2.classifier import MOBILENETV2
from src.quantisation.calibration import observe
from src.segformer import network as segformer
from src.segformer.checkpoints import class_table
from src.segformer.data.class_list import read_class_list
from src.segformer.quantised import network as quantised
from tests.ascend310.networks import SIZE
from tests.networks import calm

WIDTH = 0.35
SEG_SIZE = 64


def command(name: str, *flags: object) -> None:
    status = zoo.run(name, list(map(str, flags)))
    if status:
        sys.exit(status)


def calibrate(net: mobilenetv2.MobileNetV2, batch: ms.Tensor) -> None:
    """Give the batch normalisations the statistics of a batch instead of 0 and 1, or the signal would die away.

    One pass in training mode moves them a small known share of the way.
    """
    net.set_train(True).backbone(batch)
    net.set_train(False)
    share = 1 - mobilenetv2.BN_MOMENTUM
    for _, cell in net.cells_and_names():
        if isinstance(cell, ms.nn.BatchNorm2d):
            cell.moving_mean.set_data(cell.moving_mean / share)
            cell.moving_variance.set_data((cell.moving_variance - mobilenetv2.BN_MOMENTUM) / share)


def fitted_head(net: mobilenetv2.MobileNetV2, root: Path) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """A classifier of the digits on the features of an untrained backbone: seconds instead of minutes."""
    folder = scan(str(root), ())
    pictures = [images.decode(folder.source.read(i)) for i in range(len(folder))]
    planes = [dataset.normalise(dataset.centred(picture, (SIZE, SIZE), Data.crop_pct)) for picture in pictures]
    ms.set_context(mode=ms.PYNATIVE_MODE)  # compiling the backbone would take longer
    batches = [ms.Tensor(batch) for batch in np.array_split(np.stack(planes), 3)]
    calibrate(net, batches[0])
    features = np.concatenate([net.backbone(batch).mean((2, 3)).asnumpy() for batch in batches])
    middle, spread = features.mean(0), features.std(0) + 1e-6
    model = RidgeClassifier(alpha=100).fit((features - middle) / spread, folder.labels)
    weight = model.coef_ / spread
    classifier = MOBILENETV2.classifier
    head = {classifier: weight, classifier.replace("weight", "bias"): model.intercept_ - weight @ middle}
    return {name: array.astype(np.float32) for name, array in head.items()}, folder.class_to_index


def export_mobilenetv2(digits: Path, out: Path) -> None:
    """net.onnx, exported/net.mindir with what lies beside it, and a copy under the name of AIR, which Ascend writes."""
    net = calm(mobilenetv2.build(10, WIDTH, 1)).set_train(False)
    head, class_to_index = fitted_head(net, digits)
    arrays = {**checkpoint.arrays_of(net.get_parameters()), **head}
    about = {"model": "mobilenetv2", "class_to_index": class_to_index, "image_size": [SIZE, SIZE], "width_mult": WIDTH}
    checkpoint.save(out / "net.ckpt", arrays, about)
    flags = ["--platform", "CPU", "--ckpt_file", out / "net.ckpt", "--width_mult", WIDTH]
    flags += ["--image_height", SIZE, "--image_width", SIZE]
    command("export", *flags, "--file_format", "ONNX", "--dynamic_batch", "True", "--file_name", out / "net")
    command("export", *flags, "--file_format", "MINDIR", "--file_name", out / "exported" / "net")
    shutil.copyfile(out / "exported" / "net.mindir", out / "air" / "net.air")


def export_quant(digits: Path, out: Path) -> None:
    """quant.onnx: integers, calibrated on the digits."""
    flags = ["--config_path", "configs/mobilenetv2_quant/digits_cpu.yaml", "--width_mult", WIDTH]
    flags += ["--image_height", SIZE, "--image_width", SIZE, "--dataset_path", digits]
    trained = ["--pretrain_ckpt", out / "net.ckpt", "--save_checkpoint_path", out / "calibrated"]
    command("train", *flags, *trained, "--calibrate_only", 2)
    calibrated = out / "calibrated" / "mobilenetv2_quant-calibrated.ckpt"
    command("export", *flags, "--ckpt_file", calibrated, "--file_format", "ONNX", "--file_name", out / "quant")


def export_segformer(pictures: Path, out: Path) -> None:
    """seg.onnx, and what infer.py predicts on the pictures when it pads them as the application does."""
    classes = read_class_list(pictures / "classes.csv")
    net = segformer.build("mit_b0", len(classes), 0, 1)
    about = {"model": "segformer", "backbone": "mit_b0", "classes": class_table(classes)}
    checkpoint.save(out / "seg.ckpt", checkpoint.arrays_of(net.get_parameters()), about)
    flags = ["--config_path", "configs/segformer/segformer.b0.cpu.yaml", "--class_num", len(classes)]
    flags += ["--base_size", [SEG_SIZE, SEG_SIZE]]
    exported = ["--export_ckpt_path", out / "seg.ckpt", "--export_name", out / "seg"]
    command("export", *flags, *exported, "--export_format", "ONNX")
    flags += ["--size_divisor", SEG_SIZE, "--infer_ckpt_path", out / "seg.ckpt"]
    command("infer", *flags, "--data_path", pictures / "images", "--infer_output_path", out / "by_infer")


def export_quantised_segformer(pictures: Path, out: Path) -> None:
    """seg_quant.onnx: the integers of seg.ckpt's network, and by_infer_quant/, what infer.py predicts with it."""
    float_file = checkpoint.read(str(out / "seg.ckpt"))
    net = segformer.build("mit_b0", len(float_file.meta["classes"]["names"]), 0, 1)
    checkpoint.load(net, float_file.arrays, "seg.ckpt")
    quantised.quantise(net, 0.99, None)
    quantised.set_calibrating(net, True)
    noise = np.random.default_rng(0).standard_normal((1, 3, SEG_SIZE, SEG_SIZE)).astype(np.float32)
    observe(net, list(quantised.activation_quantisers(net)), [ms.Tensor(noise)])
    about = {**float_file.meta, "quantisation": {"bits": 8, "range_decay": 0.99}}
    checkpoint.save(out / "seg_quant.ckpt", checkpoint.arrays_of(net.get_parameters()), about)
    flags = ["--config_path", "configs/segformer/segformer.b0.cpu.yaml", "--base_size", [SEG_SIZE, SEG_SIZE]]
    flags += ["--class_num", len(about["classes"]["names"]), "--data_path", pictures / "images"]
    exported = ["--export_ckpt_path", out / "seg_quant.ckpt", "--export_name", out / "seg_quant"]
    command("export", *flags, *exported, "--export_format", "ONNX")
    flags += ["--size_divisor", SEG_SIZE, "--infer_ckpt_path", out / "seg_quant.onnx", "--eval_backend", "onnx"]
    command("infer", *flags, "--infer_output_path", out / "by_infer_quant")


if __name__ == "__main__":
    made = Path(sys.argv[3])
    device.setup("CPU")
    if len(sys.argv) > 4:
        export_quantised_segformer(Path(sys.argv[2]), made)
        sys.exit()
    for folder in ("air", "exported"):
        (made / folder).mkdir()
    export_mobilenetv2(Path(sys.argv[1]), made)
    export_quant(Path(sys.argv[1]), made)
    export_segformer(Path(sys.argv[2]), made)
