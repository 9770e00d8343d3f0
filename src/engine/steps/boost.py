"""A training step with the algorithms of mindspore.boost: fewer batch normalisations, frozen parameter groups."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn
from mindspore.boost import AutoBoost
from mindspore.boost.boost_cell_wrapper import BoostTrainOneStepCell

from src.engine.steps.step import TrainStep, state_of


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


@dataclass(frozen=True)
class Boost:
    """A level of boost ("O1", "O2") for a run of `total_steps`."""

    level: str
    total_steps: int
    loss_scale: float = 1.0
    centralise: bool = True  # gradients; exists on Ascend only


def make_step(net: nn.Cell, loss: Callable, optimizer: nn.Optimizer, boost: Boost) -> TrainStep:
    """The training step; its learning rate comes from `optimizer`, so the one it is called with is not used."""
    names = {id(p): p.name for p in net.get_parameters()}
    config = settings(boost.level, boost.total_steps, boost.centralise)
    automatic = AutoBoost(boost.level, config)
    boosted, boosted_optimizer = automatic.network_auto_process_train(NetWithLoss(net, loss), optimizer)
    cell = BoostTrainOneStepCell(boosted, boosted_optimizer, boost.loss_scale)
    cell.set_train(True)
    for parameter in cell.get_parameters():  # boost puts prefixes in front, checkpoints need the names as they were
        parameter.name = names.get(id(parameter), parameter.name)

    def step(lr: float, image: np.ndarray, target: np.ndarray) -> Tensor:
        result = cell(ms.Tensor(image), ms.Tensor(target))
        return result[0] if isinstance(result, tuple) else result

    return TrainStep(step, state_of(net.get_parameters(), cell.get_parameters()))
