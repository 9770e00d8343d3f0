"""What a step does to all parameters at once."""

from __future__ import annotations

from src.cpu_kernels.declaration import Argument, Operator, scalars, tensors

OPERATORS = (
    Operator(
        "MomentumUpdate",
        "moment = momentum * moment + gradient + decay * weight, then weight -= learning_rate * moment.",
        inputs=(
            Argument("learning_rate", "", "by what the step is multiplied"),
            Argument("momentum", "", "what stays of the moments"),
            Argument("decays", "entries", "decay of each weight"),
            tensors("weight", "what is trained", written=True),
            tensors("moment", "the moments", written=True),
            tensors("gradient", "gradients of the weights"),
        ),
        outputs=(Argument("done", "1", "1 when all is written"),),
    ),
    Operator(
        "MovingAverage",
        "average = decay * average + (1 - decay) * value.",
        inputs=(
            scalars("settings", "decay", "what stays of the average"),
            tensors("average", "the moving averages", written=True),
            tensors("value", "what they follow"),
        ),
        outputs=(Argument("done", "1", "1 when all is written"),),
    ),
)
