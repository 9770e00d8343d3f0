"""Every line of SegFormer's commands that users see and scripts parse, in the documented formats."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from src.engine.report import StepReport

RULE = "=" * 63
TITLE = "=" * 22 + " Evaluation Result " + "=" * 22


def step_line(now: StepReport) -> str:
    """The loss has the digits of a float32."""
    return (
        f"Epoch {now.epoch + 1}/{now.epochs}, step:{now.step + 1}/{now.steps}, loss:{np.float32(now.loss)!s}, "
        f"overflow:{bool(now.overflow)}, loss_scale:{float(now.loss_scale)}, step cost:{now.step_ms:.0f}ms"
    )


def train_size_line(images: int) -> str:
    return f"train dataset size:{images}"


def eval_size_line(images: int) -> str:
    return f"eval dataset size:{images}"


def eval_progress_line(done: int, images: int, ms: float) -> str:
    return f"eval image {done}/{images} done, step cost: {ms:.0f}ms"


def result_lines(names: Sequence[str], iou: np.ndarray, miou: float, checkpoint: str) -> list[str]:
    """The evaluation's result; IoU (K,), `checkpoint` is the file's name. A class without pixels has IoU nan."""
    per_class = [f"===> class: {name}, IoU: {float(value)!r}" for name, value in zip(names, iou)]
    return [TITLE, *per_class, RULE, f"===> mIoU: {float(miou)!r}, ckpt: {checkpoint}", RULE]


def counts_line(macc: float, pixel_accuracy: float, images: int, of: int, seconds: float) -> str:
    """What the result leaves out: the other two scores and how many images were seen."""
    return (
        f"mAcc: {macc:.6f}, pixel accuracy: {pixel_accuracy:.6f}, images: {images} of {of}, "
        f"ms/image: {seconds * 1000 / max(images, 1):.0f}"
    )


def eval_done_line(seconds: float) -> str:
    return f"all eval process done, cost:{seconds:.0f}s"


def infer_size_line(images: int, folder: str) -> str:
    return f"get image size:{images}, infer result will save to {folder}"


def infer_progress_line(done: int, images: int, ms: float) -> str:
    return f"infer {done}/{images} done, step cost:{ms:.0f}ms"


def infer_done_line(seconds: float) -> str:
    return f"all infer process done, cost:{seconds:.0f}s"
