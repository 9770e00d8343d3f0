"""Every line that users see and scripts parse, as pure functions. The formats are the documented ones."""

from __future__ import annotations

import json


def step_line(
    epoch: int, epochs: int, step: int, steps: int, loss: float, mean_loss: float, ms: float, lr: float
) -> str:
    """`epoch` and `step` count from 0; `ms` is the time since the epoch began, in milliseconds."""
    return (
        f"epoch: [{epoch:3d}/{epochs:3d}], step:[{step:5d}/{steps:5d}], "
        f"loss:[{loss:5.3f}/{mean_loss:5.3f}], time:[{ms:5.3f}], lr:[{lr:5.3f}]"
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


def json_line(**fields) -> str:
    return json.dumps(fields, sort_keys=False)


def table(rows: list[tuple[str, str]]) -> str:
    """Two aligned columns."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)
