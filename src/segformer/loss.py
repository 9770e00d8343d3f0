"""The training losses: cross entropy of pixels, what weighs its pixels otherwise, and Dice.

Shapes: N images of H x W pixels, K classes; logits (N, K, H, W), label (N, H, W) with `ignore` where no pixel counts.
"""

from __future__ import annotations

from collections.abc import Callable

from mindspore import Tensor, ops

LEAST_KEPT = 16  # hard-example mining keeps at least one pixel in so many
SMOOTH = 1.0  # pixels added to a Dice ratio, so that a class without pixels has one


def pixel_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Cross entropy (N, H, W) of each pixel; a label has to be a class."""
    # Subtracting the highest logit changes no value; the gradient of a maximum is slow, and 0 here.
    logits = logits - ops.stop_gradient(logits.max(1, keepdims=True))
    return ops.log(ops.exp(logits).sum(1)) - ops.gather_d(logits, 1, label.expand_dims(1)).squeeze(1)


def cross_entropy(logits: Tensor, label: Tensor, weights: Tensor, ignore: int) -> Tensor:
    """Mean of the pixels' cross entropies, weighted by class, weights (K,).

    Pixels with label `ignore` do not count, and where no pixel counts the loss is 0.
    """
    logits = logits.astype(weights.dtype)
    counted = label != ignore
    label = label * counted
    entropy = pixel_entropy(logits, label)
    weight = ops.gather(weights, label, 0) * counted
    return (entropy * weight).sum() / ops.maximum(weight.sum(), 1e-6)


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
        logits = logits.astype(weights.dtype)
        counted = label != ignore
        entropy = pixel_entropy(logits, label * counted)
        weight = ops.gather(weights, label * counted, 0) * counted
        p = ops.exp(-entropy)
        if ohem_threshold > 0:
            easy = ops.stop_gradient(ops.select(counted, p, ops.ones_like(p) * 2.0)).reshape(-1)  # ignored: last
            least = ops.topk(easy, easy.shape[0] // LEAST_KEPT + 1, largest=False)[0].max()
            weight = weight * ops.logical_or(p < ohem_threshold, p <= least)
        told = entropy
        if focal_gamma > 0:
            told = entropy * ops.clamp(1.0 - p, 1e-6, 1.0) ** focal_gamma
        found = (told * weight).sum() / ops.maximum(weight.sum(), 1e-6)
        return found + dice_weight * dice(logits, label, ignore) if dice_weight > 0 else found

    return loss
