"""What is compared with what. Plain data: this file is loaded into every measured process."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Section:
    """A table: its title, the field of a worker's answer that it shows, and the format of that number."""

    title: str
    field: str
    number: str


@dataclass(frozen=True)
class Contender:
    """One row: the function of workers.py, what it needs, and the row that its ratio refers to."""

    worker: str
    kind: str
    label: str
    reference: str
    needs: tuple[str, ...] = ()


REFERENCES = {"data": "PIL", "quant": "float"}  # how a table's last column calls what it divides by
SECTIONS = {
    "train": Section("Training, images/s", "images_per_s", ".1f"),
    "infer": Section("Inference, images/s", "images_per_s", ".1f"),
    "quant": Section("Quantisation-aware training, images/s", "images_per_s", ".1f"),
    "data": Section("Data pipeline, images/s", "images_per_s", ".0f"),
    "memory": Section("Peak memory of training, resident MB", "peak_mb", ".0f"),
}

MINDSPORE = ("mindspore",)
TORCH = ("torch",)
ONNX = ("mindspore", "onnx", "onnxruntime")

CONTENDERS = (
    Contender("train_kernels", "train", "MindSpore, our CPU kernels", "train_torch_channels_last", MINDSPORE),
    Contender("train_stock", "train", "MindSpore, stock operators", "train_torch_channels_last", MINDSPORE),
    Contender("train_torch_nchw", "train", "PyTorch eager, NCHW", "train_torch_channels_last", TORCH),
    Contender("train_torch_channels_last", "train", "PyTorch eager, channels-last", "train_torch_channels_last", TORCH),
    Contender("infer_kernels", "infer", "MindSpore, our CPU kernels", "infer_torch", MINDSPORE),
    Contender("infer_stock", "infer", "MindSpore, stock operators", "infer_torch", MINDSPORE),
    Contender("infer_onnx", "infer", "onnxruntime, our export", "infer_torch", ONNX),
    Contender("infer_torch", "infer", "PyTorch eager, channels-last", "infer_torch", TORCH),
    Contender("infer_onnx_single", "infer", "onnxruntime, our export, batch 1", "infer_torch_single", ONNX),
    Contender("infer_torch_single", "infer", "PyTorch eager, channels-last, batch 1", "infer_torch_single", TORCH),
    Contender("quant_float", "quant", "float, our CPU kernels", "quant_float", MINDSPORE),
    Contender("quant_aware", "quant", "MobileNetV2-quant, our CPU kernels", "quant_float", MINDSPORE),
    Contender("data_ours", "data", "our threads (OpenCV)", "data_pil"),
    Contender("data_pil", "data", "PIL in processes, as a DataLoader", "data_pil"),
    Contender("data_minddata", "data", "MindData (C++)", "data_pil", MINDSPORE),
)


def rows_of(section: str) -> list[Contender]:
    """The contenders of a section; memory is measured in the processes that train."""
    kind = "train" if section == "memory" else section
    return [contender for contender in CONTENDERS if contender.kind == kind]
