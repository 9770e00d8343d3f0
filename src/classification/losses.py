"""Losses of the task, which a configuration may ask for in place of a model's own."""

from __future__ import annotations

from collections.abc import Callable

from mindspore import Tensor, ops


def focal(gamma: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Focal loss (https://arxiv.org/abs/1708.02002) of logits and target probabilities (N, K), a scalar.

    The mean over the batch of -sum(target * (1 - p)^gamma * log p), p = softmax(logits); cross entropy at gamma 0.
    """

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        log_probability = ops.log_softmax(logits, 1)
        # (1 - p)^gamma through its logarithm would be -inf at p = 1; the clamp keeps its gradient finite there.
        doubt = ops.clamp(1.0 - ops.exp(log_probability), 1e-6, 1.0) ** gamma
        return -(target * doubt * log_probability).sum(1).mean()

    return loss
