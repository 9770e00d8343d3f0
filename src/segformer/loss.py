"""The training loss."""

from mindspore import Tensor, ops


def cross_entropy(logits: Tensor, label: Tensor, weights: Tensor, ignore: int) -> Tensor:
    """Mean of the pixels' cross entropies, weighted by class; logits (N, K, H, W), label (N, H, W), weights (K,).

    Pixels with label `ignore` do not count, and where no pixel counts the loss is 0.
    """
    logits = logits.astype(weights.dtype)
    counted = label != ignore
    label = label * counted
    # Subtracting the highest logit changes no value; the gradient of a maximum is slow, and 0 here.
    logits = logits - ops.stop_gradient(logits.max(1, keepdims=True))
    entropy = ops.log(ops.exp(logits).sum(1)) - ops.gather_d(logits, 1, label.expand_dims(1)).squeeze(1)  # (N, H, W)
    weight = ops.gather(weights, label, 0) * counted
    return (entropy * weight).sum() / ops.maximum(weight.sum(), 1e-6)
