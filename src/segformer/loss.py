"""The training losses: cross entropy of pixels, what weighs its pixels otherwise, and Dice.

Shapes: N images of H x W pixels, K classes; logits (N, K, H, W), label (N, H, W) with `ignore` where no pixel counts.
"""

from __future__ import annotations

from collections.abc import Callable

from mindspore import Tensor, ops

LEAST_KEPT = 16  # hard-example mining keeps at least one pixel in so many
SMOOTH = 1.0  # pixels added to a Dice ratio, so that a class without pixels has one


def pixel_entropy(logits: Tensor, label: Tensor, weights: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """Each pixel's cross entropy, and its weight: that of its class, 0 where it is not `counted`; all (N, H, W)."""
    logits, label = logits.astype(weights.dtype), label * counted
    # Subtracting the highest logit changes no value; the gradient of a maximum is slow, and 0 here.
    logits = logits - ops.stop_gradient(logits.max(1, keepdims=True))
    entropy = ops.log(ops.exp(logits).sum(1)) - ops.gather_d(logits, 1, label.expand_dims(1)).squeeze(1)
    return entropy, ops.gather(weights, label, 0) * counted


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """0 where nothing weighs."""
    return (values * weight).sum() / ops.maximum(weight.sum(), 1e-6)


def cross_entropy(logits: Tensor, label: Tensor, weights: Tensor, ignore: int) -> Tensor:
    """Mean of the pixels' cross entropies, weighted by class, weights (K,).

    Pixels with label `ignore` do not count, and where no pixel counts the loss is 0.
    """
    entropy, weight = pixel_entropy(logits, label, weights, label != ignore)
    return weighted_mean(entropy, weight)


def dice(logits: Tensor, label: Tensor, ignore: int) -> Tensor:
    """1 - mean over classes of 2 |P and T| / (|P| + |T|) with P the probabilities and T the labels of a batch."""
    classes = logits.shape[1]
    counted = label != ignore
    mask = counted.expand_dims(1).astype(logits.dtype)
    probability = ops.softmax(logits, 1) * mask
    truth = ops.one_hot(label * counted, classes, axis=1).astype(logits.dtype) * mask
    common = 2.0 * (probability * truth).sum((0, 2, 3)) + SMOOTH
    return 1.0 - (common / ((probability + truth).sum((0, 2, 3)) + SMOOTH)).mean()


def weighed(weights: Tensor, ignore: int, focal_gamma: float, ohem_threshold: float, dice_weight: float) -> Callable:
    """logits, label -> cross entropy whose pixels count by how hard they are, plus `dice_weight` times Dice.

    p is the probability of a pixel's label. Focal loss (https://arxiv.org/abs/1708.02002) counts a pixel
    (1 - p)^`focal_gamma`; hard-example mining leaves out those with p >= `ohem_threshold`, but keeps the hardest
    1 / LEAST_KEPT of all. 0 is off.
    """

    def loss(logits: Tensor, label: Tensor) -> Tensor:
        counted = label != ignore
        entropy, weight = pixel_entropy(logits, label, weights, counted)
        p = ops.exp(-entropy)
        if ohem_threshold > 0:
            easy = ops.stop_gradient(ops.select(counted, p, ops.ones_like(p) * 2.0)).reshape(-1)  # ignored: last
            least = ops.topk(easy, easy.shape[0] // LEAST_KEPT + 1, largest=False)[0].max()
            weight = weight * ops.logical_or(p < ohem_threshold, p <= least)
        if focal_gamma > 0:
            entropy = entropy * ops.clamp(1.0 - p, 1e-6, 1.0) ** focal_gamma
        found = weighted_mean(entropy, weight)
        if dice_weight > 0:
            found = found + dice_weight * dice(logits.astype(weights.dtype), label, ignore)
        return found

    return loss
