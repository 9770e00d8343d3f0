"""Every line that users see and scripts parse, as pure functions. The formats are the documented ones."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NamedTuple


class StepReport(NamedTuple):
    """What is known after a training step; `epoch` and `step` count from 0."""

    epoch: int
    epochs: int
    step: int
    steps: int  # per epoch
    loss: float
    mean_loss: float  # of the epoch so far
    epoch_ms: float  # since the epoch began
    step_ms: float  # mean of the steps since the line before
    lr: float
    overflow: bool = False
    loss_scale: float = 1.0


def step_line(now: StepReport) -> str:
    return (
        f"epoch: [{now.epoch:3d}/{now.epochs:3d}], step:[{now.step:5d}/{now.steps:5d}], "
        f"loss:[{now.loss:5.3f}/{now.mean_loss:5.3f}], time:[{now.epoch_ms:5.3f}], lr:[{now.lr:5.3f}]"
    )


def epoch_line(ms: float, steps: int, mean_loss: float) -> str:
    return f"epoch time: {ms:5.3f}, per step time: {ms / max(steps, 1):5.3f}, avg loss: {mean_loss:5.3f}"


def eval_in_training(accuracy: float, best: float) -> str:
    """Appended to the epoch line when run_eval is on."""
    return f", eval_acc: {accuracy:.6f}, best_acc: {best:.6f}"


def result_line(accuracy: float, checkpoint: str) -> str:
    return f"result: {{'acc': {accuracy!r}}} ckpt={checkpoint}"


def counts_line(top5: float, samples: int, files: int, seconds: float) -> str:
    """What the result line leaves out: top-5 and how many samples were seen."""
    return f"top-5: {top5:.6f}, samples: {samples} of {files}, images/s: {samples / max(seconds, 1e-9):.1f}"


def printable(text: str) -> str:
    """A name on one line and in UTF-8: everything else in it, and the backslash, as Python's escapes.

    So different names stay different; `text.encode("latin-1", "backslashreplace").decode("unicode_escape")` is the way
    back.
    """
    escaped = (c if c.isprintable() and c != "\\" else c.encode("unicode_escape").decode("ascii") for c in text)
    return "".join(escaped)


def prediction_line(file: str, likely: Iterable[tuple[str, float]]) -> str:
    """`likely` are classes and their probabilities, the likeliest first."""
    return f"{file}: " + ", ".join(f"{name} {share:.2f}" for name, share in likely)


def right_line(right: int, known: int) -> str:
    """Of a prediction of images whose classes are known."""
    return f"top-1: {right / known:.6f}, right: {right} of {known} images whose folders name their class"


def json_line(**fields: object) -> str:
    return json.dumps(fields, sort_keys=False)


def table(rows: list[tuple[str, str]]) -> str:
    """Two aligned columns."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)
