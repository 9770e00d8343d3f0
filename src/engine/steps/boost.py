"""A training step with the algorithms of mindspore.boost: fewer batch normalisations, frozen parameter groups."""

from __future__ import annotations

from collections.abc import Callable

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn
from mindspore.boost import AutoBoost
from mindspore.boost.boost_cell_wrapper import BoostTrainOneStepCell


class NetWithLoss(nn.Cell):
    """Inputs of `net`, then the target -> loss; a cell, because boost rewrites the cells inside."""

    def __init__(self, net: nn.Cell, loss: Callable):
        super().__init__(auto_prefix=False)
        self.net = net
        self.loss = loss

    def construct(self, image: Tensor, target: Tensor) -> Tensor:
        return self.loss(self.net(image), target)


def settings(level: str, total_steps: int, centralise: bool = True) -> dict:
    """What `level` ("O1", "O2") switches on; gradient centralisation exists on Ascend only."""
    return {
        "boost": {
            "mode": "manual",
            "less_bn": True,
            "grad_freeze": True,
            "adasum": level == "O2",
            "grad_accumulation": False,
            "dim_reduce": False,
            "loss_scale_group": False,
        },
        "common": {"gradient_split_groups": [50, 100], "device_number": 8},
        # fn_flag would replace the classifier by a normalised one, which exported networks do not have.
        "less_bn": {"fn_flag": False, "gc_flag": centralise},
        "grad_freeze": {"param_groups": 10, "freeze_type": 1, "freeze_p": 0.7, "total_steps": total_steps},
    }


def make_step(net: nn.Cell, loss: Callable, optimizer: nn.Optimizer, level: str, config: dict, loss_scale: float):
    """`step(lr, image, target)` returns the loss; the learning rate comes from `optimizer`, so `lr` is not used."""
    names = {id(p): p.name for p in net.get_parameters()}
    boosted, boosted_optimizer = AutoBoost(level, config).network_auto_process_train(NetWithLoss(net, loss), optimizer)
    cell = BoostTrainOneStepCell(boosted, boosted_optimizer, loss_scale)
    cell.set_train(True)
    for parameter in cell.get_parameters():  # boost puts prefixes in front, checkpoints need the names as they were
        parameter.name = names.get(id(parameter), parameter.name)

    def step(lr: float, image: np.ndarray, target: np.ndarray) -> Tensor:
        result = cell(ms.Tensor(image), ms.Tensor(target))
        return result[0] if isinstance(result, tuple) else result

    return step
