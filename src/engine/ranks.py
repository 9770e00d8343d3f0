"""What the processes of a data-parallel run tell each other; with one process every function is the identity.

MindSpore's collectives on CPU know float32 sums only and give up when a rank comes more than MS_NODE_TIMEOUT seconds
after another (2.8.0: 30, 600 under our launcher), so all here is such a sum, and long work of several ranks is in step.
"""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable
from dataclasses import dataclass

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from src.engine.data.stream import Shard

DIGIT_BITS = 16  # float32 sums of 16-bit digits are exact for up to 256 ranks
DIGITS = 4  # of a 64-bit count


@dataclass(frozen=True)
class Rank:
    """Position among the processes of a data-parallel run."""

    index: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        return self.index == 0

    @property
    def shard(self) -> Shard:
        """This rank's part of the data."""
        return Shard(self.index, self.count)

    def total(self, values: np.ndarray) -> np.ndarray:
        """Sum over all ranks, float32, same shape."""
        if self.count == 1:
            return values
        return self.sum_of(ms.Tensor(np.ascontiguousarray(values, np.float32))).asnumpy()

    def sum_of(self, values: ms.Tensor) -> ms.Tensor:
        """Sum over all of several ranks, float32, same shape; on cards it need not be there yet."""
        return _all_reduce()(values)

    def total_counts(self, counts: np.ndarray) -> np.ndarray:
        """Exact sum of whole numbers (int64, not negative) over all ranks."""
        if self.count == 1:
            return counts
        shifts = DIGIT_BITS * np.arange(DIGITS).reshape(-1, *[1] * counts.ndim)
        digits = (counts[None] >> shifts) & (2**DIGIT_BITS - 1)
        return (self.total(digits).astype(np.int64) << shifts).sum(0)

    def gather(self, numbers: np.ndarray) -> np.ndarray:
        """Whole numbers (n,) of every rank (int64, not negative) -> (ranks, n), the same on every rank."""
        table = np.zeros((self.count, *numbers.shape), np.int64)
        table[self.index] = numbers
        return self.total_counts(table)

    def share_statistics(self, net: nn.Cell) -> None:
        """Give every rank the first one's untrained parameters: a checkpoint, and so its score, has only those.

        They are the moving statistics of batch normalisation and the ranges of quantisers, of each rank's own images.
        """
        if self.count > 1:
            for parameter in net.get_parameters():
                if not parameter.requires_grad:
                    values = parameter.asnumpy()
                    ops.assign(parameter, ms.Tensor(self.total(values if self.is_first else np.zeros_like(values))))

    def wait(self) -> None:
        """Go on when every rank has come here."""
        self.total(np.zeros(1, np.float32))

    def agree(self, loss: ms.Tensor, signal_number: int) -> Callable[[], tuple[float, int]]:
        """Begin to ask all ranks for their losses (scalars) and signals (0: none), without waiting for any.

        The answer is read by calling what is returned: the mean loss, and the signal that some rank got, the same on
        every rank. On cards the sum queues behind the step that makes the loss, so it is there soon after it.
        """
        if self.count == 1:
            return lambda: (float(loss.asnumpy()), signal_number)
        got = ms.Tensor(float(signal_number > 0), ms.float32)
        summed = self.sum_of(ops.stack((loss, got)))

        def answer() -> tuple[float, int]:
            loss_sum, asked = summed.asnumpy()
            return float(loss_sum) / self.count, _signal(signal_number, asked)

        return answer

    def agree_on(self, signal_number: int) -> int:
        """The signal that some rank got (0: none), the same on every rank; waits for all."""
        return _signal(signal_number, self.total(np.array([signal_number > 0]))[0])


def _signal(own: int, asked: float) -> int:
    """The signal to stop by, where `asked` says that some rank got one."""
    return (own or int(signal.SIGTERM)) if asked else 0


@functools.cache
def _all_reduce() -> ops.AllReduce:
    return ops.AllReduce()
