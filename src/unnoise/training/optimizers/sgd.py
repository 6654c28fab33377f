"""Stochastic gradient descent with momentum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...options import option
from .adam import penalise
from .base import Memory, Optimizer, Rate, optimizers


@optimizers.register("sgd")
@dataclass(frozen=True)
class SGDOptimizer(Optimizer):
    """Weights roll down the gradient; they need a rate of their own kind, and have half of AdamW's memory.

    References:
        On the importance of initialization and momentum in deep learning (Sutskever et al., 2013), Equations 1 to 4,
        https://proceedings.mlr.press/v28/sutskever13.html
    """

    momentum: float = option(0.9, help="share of its velocity that a weight keeps", low=0.0, high=0.9999)
    nesterov: bool = option(True, help="whether the gradient counts once more in the step that it is found for")

    moments: ClassVar[tuple[str, ...]] = ("velocity",)
    proportional: ClassVar[bool] = True

    def update(self, memory: Memory, rate: Rate) -> None:
        """See `Optimizer.update`."""
        penalise(memory, rate)
        gradient, velocity = memory.gradients.vector, memory.moments["velocity"].vector
        velocity.mul_(self.momentum).add_(gradient)
        step = gradient.add_(velocity, alpha=self.momentum) if self.nesterov else velocity
        memory.weights.vector.add_(step, alpha=-rate.learning_rate)
        memory.updates.add_(1)
