"""The training loss."""

from mindspore import Tensor, ops


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean over the batch of -sum(target * log softmax(logits)); logits and target (N, K), result a scalar."""
    return -(target * ops.log_softmax(logits, 1)).sum(1).mean()
