"""Adam with a penalty on the squared weights: their decay is a part of the gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ...options import option
from .base import Memory, Optimizer, Rate, adamw, optimizers


@optimizers.register("adam")
@dataclass(frozen=True)
class AdamOptimizer(Optimizer):
    """AdamW, but for weight decay, which is added to the gradient (L2); without decay the two are one.

    References:
        Adam: A Method for Stochastic Optimization (Kingma and Ba, 2015), Algorithm 1, https://arxiv.org/abs/1412.6980
    """

    eps: float = option(1e-8, help="added to the root of the squared gradient's average", low=0.0, high=1.0)

    moments: ClassVar[tuple[str, ...]] = ("first_moment", "second_moment")

    def update(self, memory: Memory, rate: Rate) -> None:
        """See `Optimizer.update`."""
        penalise(memory, rate)
        first, second = (memory.moments[name].vector for name in self.moments)
        weights, gradient = memory.weights.vector, memory.gradients.vector
        adamw([weights], [gradient], [first], [second], memory.updates.add_(1), rate, self.eps)


def penalise(memory: Memory, rate: Rate) -> None:
    """Adds the gradient of a penalty on half the squared weights to that of the loss."""
    if rate.weight_decay and rate.only_matrices:
        chosen = memory.matrices
        gradients, weights = ([flat.views[i] for i in chosen] for flat in (memory.gradients, memory.weights))
        torch._foreach_add_(gradients, weights, alpha=rate.weight_decay)
    elif rate.weight_decay:
        memory.gradients.vector.add_(memory.weights.vector, alpha=rate.weight_decay)
