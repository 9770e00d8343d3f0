"""The mean of gradients over the ranks, inside a compiled step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from mindspore import ParameterTuple, ops
from mindspore.ops.auto_generate import SplitWithSize  # ops.split unrolls a loop and fails with 150 parts


def mean_over_ranks(parameters: ParameterTuple, ranks: int) -> Callable:
    """Gradients -> their means over all ranks.

    They are sent as one vector, in one exchange per step instead of one per parameter. MindSpore's reducer does the
    same by a fusion of its own, but only in the parallel mode of the old context, which is on its way out.
    """
    sizes = tuple(int(np.prod(p.shape)) for p in parameters)
    all_reduce, each, split = ops.AllReduce(), ops.HyperMap(), SplitWithSize()

    def flat(gradient):
        return gradient.reshape(-1)

    def like(part, gradient):
        return part.reshape(gradient.shape)

    def mean(gradients):
        total = all_reduce(ops.concat(each(flat, gradients))) / ranks
        return each(like, split(total, sizes, 0), gradients)

    return mean
