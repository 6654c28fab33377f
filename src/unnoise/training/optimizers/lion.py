"""Lion: the sign of momentum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .base import Memory, Optimizer, Rate, optimizers


@optimizers.register("lion")
@dataclass(frozen=True)
class LionOptimizer(Optimizer):
    r"""Every weight moves by exactly the learning rate; it wants a third to a tenth of AdamW's, and has half of its memory.

    .. math:: w \leftarrow w - \eta\,(\operatorname{sign}(\beta_1 m + (1 - \beta_1) g) + \lambda w), \qquad
        m \leftarrow \beta_2 m + (1 - \beta_2) g

    References:
        Symbolic Discovery of Optimization Algorithms (Chen et al., 2023), Program 1, https://arxiv.org/abs/2302.06675
    """

    moments: ClassVar[tuple[str, ...]] = ("first_moment",)

    def update(self, memory: Memory, rate: Rate) -> None:
        """See `Optimizer.update`."""
        gradient, momentum = memory.gradients.vector, memory.moments["first_moment"].vector
        memory.decay(rate.learning_rate * rate.weight_decay, rate.only_matrices)
        memory.weights.vector.add_(momentum.lerp(gradient, 1 - rate.betas[0]).sign_(), alpha=-rate.learning_rate)
        momentum.lerp_(gradient, 1 - rate.betas[1])
        memory.updates.add_(1)
