"""What computes in which precision: the cells of a network, a device, and how closely exported files have to match."""

from __future__ import annotations

import mindspore as ms
from mindspore import nn
from mindspore.device_context.ascend import op_precision as ascend
from mindspore.device_context.gpu import op_precision as gpu

FLOAT32 = "float32"

# In mixed precision convolutions, dense layers and matrix products take and give "float16" or "bfloat16", and so does
# what lies between them. In float32 are these cells, and what a network casts itself: softmax, GELU, means over
# positions, logits, and with them the loss. Parameters and the optimizer's state are float32 throughout.
FLOAT32_CELLS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm, nn.LayerNorm)

# Ascend's precision_mode. Its default on the first 910 is force_fp16, which takes float16 wherever there is a choice.
# must_keep_origin_dtype takes what the graph says; a card that cannot multiply matrices in float32 refuses then. With
# mixed precision matrices are in half precision anyway, and allow_fp32_to_... keeps the other operators in float32.
ASCEND_MODES = {
    FLOAT32: "must_keep_origin_dtype",
    "float16": "allow_fp32_to_fp16",
    "bfloat16": "allow_fp32_to_bf16",
}

# Largest difference between an output of an exported file and of its network, which are both computed in float32. A
# CPU and, without TF32, a GPU round each operation to 24 bits; Ascend's functions promise one part in 10,000 each.
TOLERANCES = {"CPU": 1e-4, "GPU": 1e-4, "Ascend": 1e-3}

_in_force: dict[str, str] = {}


def apply(net: nn.Cell, dtype: str) -> nn.Cell:
    """Let `net` compute in `dtype`, in place, as the table says; training, evaluation and eval.py all come here."""
    if dtype == FLOAT32:
        return net
    net.to_float(getattr(ms, dtype))
    for _, cell in net.cells_and_names():
        if isinstance(cell, FLOAT32_CELLS):
            cell.to_float(ms.float32)
    return net


def set_device(platform: str, dtype: str) -> None:
    """Let the selected device compute float32 operators in float32, next to those in `dtype`."""
    _in_force.clear()
    _in_force["precision"] = dtype
    if platform == "Ascend":
        ascend.precision_mode(ASCEND_MODES[dtype])
        ascend.matmul_allow_hf32(False)
        ascend.conv_allow_hf32(False)  # CANN's default is True
        _in_force.update(precision_mode=ASCEND_MODES[dtype], matmul_allow_hf32="False", conv_allow_hf32="False")
    elif platform == "GPU":
        gpu.matmul_allow_tf32(False)
        gpu.conv_allow_tf32(False)  # MindSpore's default is True
        _in_force.update(matmul_allow_tf32="False", conv_allow_tf32="False")


def in_force() -> dict[str, str]:
    """What set_device has set in this process."""
    return dict(_in_force)
