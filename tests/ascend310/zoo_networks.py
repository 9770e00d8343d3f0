"""The zoo's own networks, exported as a user would export them; one MindSpore process makes them all.

python -m tests.ascend310.zoo_networks DIGITS PICTURES OUT   (digits: class folders; pictures: a SegFormer data folder)
"""

from __future__ import annotations

import sys
from pathlib import Path

import mindspore as ms
import numpy as np
from sklearn.linear_model import LogisticRegression

from src import zoo
from src.engine import checkpoint, device, images
from src.engine.image_folder import scan
from src.mobilenetv2 import dataset
from src.mobilenetv2 import network as mobilenetv2
from src.mobilenetv2.pretrained import CLASSIFIER
from src.segformer import network as segformer
from src.segformer.class_list import read_class_list
from src.segformer.pretrained import class_table
from tests.ascend310.networks import SIZE

SEG_SIZE = 64


def command(name: str, *flags: object) -> None:
    status = zoo.run(name, list(map(str, flags)))
    if status:
        sys.exit(status)


def fitted_head(net: mobilenetv2.MobileNetV2, root: Path) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Weights of a classifier of the digits on the features of a fresh backbone: seconds instead of minutes."""
    folder = scan(str(root), ())
    planes = [dataset.eval_transform(images.read(folder.path(i)), SIZE, SIZE) for i in range(len(folder))]
    ms.set_context(mode=ms.PYNATIVE_MODE)  # compiling the backbone would take longer
    batches = np.array_split(np.stack(planes), 3)
    features = np.concatenate([net.backbone(ms.Tensor(batch)).mean((2, 3)).asnumpy() for batch in batches])
    middle, spread = features.mean(0), features.std(0) + 1e-6
    model = LogisticRegression(C=0.01, max_iter=100).fit((features - middle) / spread, folder.labels)
    weight = model.coef_ / spread
    head = {CLASSIFIER: weight, CLASSIFIER.replace("weight", "bias"): model.intercept_ - weight @ middle}
    return {name: array.astype(np.float32) for name, array in head.items()}, folder.class_to_index


def export_mobilenetv2(digits: Path, out: Path) -> None:
    """net.onnx, and net.mindir under the name of an AIR file, which only Ascend can write."""
    net = mobilenetv2.build(10, 1.0, 1).set_train(False)
    head, class_to_index = fitted_head(net, digits)
    arrays = {**checkpoint.arrays_of(net.get_parameters()), **head}
    about = {"model": "mobilenetv2", "class_to_index": class_to_index, "image_size": [SIZE, SIZE], "width_mult": 1.0}
    checkpoint.save(out / "net.ckpt", arrays, about)
    flags = ["--platform", "CPU", "--ckpt_file", out / "net.ckpt", "--image_height", SIZE, "--image_width", SIZE]
    command("export", *flags, "--file_format", "ONNX", "--dynamic_batch", "True", "--file_name", out / "net")
    command("export", *flags, "--file_format", "MINDIR", "--file_name", out / "air" / "net")
    (out / "air" / "net.mindir").rename(out / "air" / "net.air")


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


if __name__ == "__main__":
    made = Path(sys.argv[3])
    device.setup("CPU")
    (made / "air").mkdir()
    export_mobilenetv2(Path(sys.argv[1]), made)
    export_segformer(Path(sys.argv[2]), made)
