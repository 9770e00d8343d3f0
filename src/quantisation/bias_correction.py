"""Biases that make up for what rounding the weights does to the mean of a layer's results.

Nagel et al., arXiv 1906.04721, section 4.2, measured on images in place of their derivation from normalisations.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from src.quantisation.calibration import Observed


class Corrected(nn.Cell):
    """A layer with a weight on a grid; while `correcting` it adds up, per output channel, what the grid changes.

    A layer gives the results of its exact weight then, so that no layer's error is counted twice.
    """

    def __init__(self, channels: int):
        super().__init__(auto_prefix=False)
        self.channels, self.correcting = channels, False

    def compared(self, exact: Tensor, rounded: Tensor, axes: tuple[int, ...]) -> Tensor:
        """`exact`, once the mean of `rounded` - `exact` over `axes`, all but the channels, is added to the sum."""
        return ops.depend(exact, ops.assign(self.shift, self.shift + (rounded - exact).mean(axes)))

    def move(self, shift: Tensor) -> None:
        """Take the mean `shift` (C_out,) off the layer's results."""
        raise NotImplementedError


def correct(net: nn.Cell, layers: Sequence[Corrected], images: Iterable[Tensor]) -> int:
    """Take off every layer's results what its rounded weight adds to them in the mean; the number of layers."""
    for index, layer in enumerate(layers):
        zeros = Tensor(np.zeros(layer.channels), ms.float32)
        layer.shift, layer.correcting = Parameter(zeros, name=f"shift.{index}", requires_grad=False), True
    observed, count = Observed(net).set_train(False), 0
    for image in images:
        observed(image)
        count += 1
    for layer in layers:
        layer.correcting, shift = False, layer.shift / max(count, 1)
        del layer.shift
        layer.move(shift)
    return len(layers)
