"""AdamW: the gradient's moving average, divided by the root of that of its square."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...options import option
from .base import Memory, Optimizer, Rate, adamw, optimizers


@optimizers.register("adamw")
@dataclass(frozen=True)
class AdamWOptimizer(Optimizer):
    """Every weight moves by about the learning rate, however large its gradient; weights decay by themselves.

    References:
        Decoupled Weight Decay Regularization (Loshchilov and Hutter, 2019), Algorithm 2, https://arxiv.org/abs/1711.05101
    """

    eps: float = option(1e-8, help="added to the root of the squared gradient's average", low=0.0, high=1.0)

    moments: ClassVar[tuple[str, ...]] = ("first_moment", "second_moment")

    def update(self, memory: Memory, rate: Rate) -> None:
        """See `Optimizer.update`."""
        decay = rate.weight_decay
        if rate.only_matrices:
            memory.decay(rate.learning_rate * decay, only_matrices=True)
            decay = 0.0
        first, second = (memory.moments[name].vector for name in self.moments)
        weights, gradient = memory.weights.vector, memory.gradients.vector
        adamw([weights], [gradient], [first], [second], memory.updates.add_(1), rate, self.eps, decay)
