"""Parameter names: ours, PyTorch's (torchvision) and those of the original MindSpore network. No MindSpore here.

Ours         backbone.features.1.conv.0.0.weight   backbone.features.1.conv.0.1.gamma            head.dense.weight
torchvision  features.1.conv.0.0.weight            features.1.conv.0.1.weight                    classifier.1.weight
model zoo    features.1.conv.0.features.0.weight   features.1.conv.0.features.1.gamma            dense.weight
"""

from __future__ import annotations

import re

TORCH_BN = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
# Batch normalisations: position 1 of a conv-bn-relu group, or the cell after the projection of a block (index 2 or 3).
BATCH_NORM = re.compile(r"features\.(\d+\.1|\d+\.conv\.\d+\.1|1\.conv\.2|(?!1\.)\d+\.conv\.3)")


def from_torchvision(name: str) -> str | None:
    """Our name of a torchvision entry, None for one that has no counterpart (num_batches_tracked)."""
    owner, _, leaf = name.rpartition(".")
    if owner == "classifier.1":
        return f"head.dense.{leaf}"
    if leaf == "num_batches_tracked" or not owner.startswith("features."):
        return None
    return f"backbone.{owner}.{TORCH_BN.get(leaf, leaf) if BATCH_NORM.fullmatch(owner) else leaf}"


def from_model_zoo(name: str) -> str:
    """Our name of an entry of an original MindSpore checkpoint."""
    name = re.sub(r"^(backbone|head)\.(?=features|dense)", "", name)
    if name.startswith("dense."):
        return f"head.{name}"
    if not name.startswith("features."):
        return name
    return "backbone.features." + name[len("features.") :].replace(".features.", ".")
