"""AdamW, with the learning rate of each step given from outside and one multiplier per parameter."""

from collections.abc import Callable

import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

EPS = 1e-8


class AdamW(nn.Cell):
    """m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g g, w -= lr (m / (sqrt(v) + eps) + decay w).

    With `bias_correction`, m is divided by 1 - b1 ^ t and v by 1 - b2 ^ t, as PyTorch's AdamW does; without it, this is
    MindSpore's AdamWeightDecay. Matrices and filters decay, biases and norms (rank 1) do not. `multiplier(name)` is the
    factor of a parameter's learning rate. `learning_rate` is set by the training step.
    """

    def __init__(
        self,
        parameters: list[Parameter],
        weight_decay: float,
        bias_correction: bool,
        multiplier: Callable[[str], float] = lambda name: 1.0,
        betas: tuple[float, float] = (0.9, 0.999),
    ):
        super().__init__(auto_prefix=False)
        self.parameters = ParameterTuple(parameters)
        self.moments1 = self.parameters.clone(prefix="adam_m", init="zeros")
        self.moments2 = self.parameters.clone(prefix="adam_v", init="zeros")
        self.learning_rate = Parameter(Tensor(np.float32(0)), name="learning_rate", requires_grad=False)
        # 1 - b ^ t, kept as such because float32 has no digits left where it is computed from b ^ t
        self.weight1 = Parameter(Tensor(np.float32(0)), name="adam_weight1", requires_grad=False)
        self.weight2 = Parameter(Tensor(np.float32(0)), name="adam_weight2", requires_grad=False)
        self.decays = tuple(weight_decay if p.ndim > 1 else 0.0 for p in parameters)
        self.multipliers = tuple(multiplier(p.name) for p in parameters)
        self.betas = betas
        self.bias_correction = bias_correction
        self.update = ops.AdamWeightDecay()

    def construct(self, gradients: tuple) -> bool:
        beta1, beta2 = self.betas
        lr, eps, correction = self.learning_rate, EPS, 1.0
        if self.bias_correction:
            weight1, weight2 = self.weight1 * beta1 + (1.0 - beta1), self.weight2 * beta2 + (1.0 - beta2)
            ops.assign(self.weight1, weight1)
            ops.assign(self.weight2, weight2)
            # The fused operator knows no correction, so it goes into its inputs; decay is independent of it.
            correction = ops.sqrt(weight2) / weight1
            eps = EPS * ops.sqrt(weight2)
        done = True
        for index, gradient in enumerate(gradients):
            decay = self.decays[index] / correction
            rate = lr * self.multipliers[index] * correction
            weight, m, v = self.parameters[index], self.moments1[index], self.moments2[index]
            done = ops.depend(done, self.update(weight, m, v, rate, beta1, beta2, eps, decay, gradient))
        return done
