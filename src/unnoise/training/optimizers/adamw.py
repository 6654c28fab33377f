"""AdamW: the gradient's moving average, divided by the root of that of its square."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ...nn.kernels import update as kernel
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
        decay = self._decay(memory, rate)
        weights, gradient, first, second = self._vectors(memory)
        adamw([weights], [gradient], [first], [second], memory.updates.add_(1), rate, self.eps, decay)

    def at_once(self, memory: Memory, rate: Rate, clip: float, average: Tensor, share: float) -> float | None:
        """See `Optimizer.at_once`."""
        vectors = *self._vectors(memory), average
        if not kernel.fused(*vectors):
            return None
        decay = self._decay(memory, rate)
        return kernel.adamw(
            *vectors, updates=float(memory.updates.add_(1)), learning_rate=rate.learning_rate, betas=rate.betas,
            eps=self.eps, decay=decay, clip=clip, share=share,
        )  # fmt: skip

    def _vectors(self, memory: Memory) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        first, second = (memory.moments[name].vector for name in self.moments)
        return memory.weights.vector, memory.gradients.vector, first, second

    def _decay(self, memory: Memory, rate: Rate) -> float:
        """What is left to decay, as a share of the learning rate, after those that decay alone."""
        if not rate.only_matrices:
            return rate.weight_decay
        memory.decay(rate.learning_rate * rate.weight_decay, only_matrices=True)
        return 0.0
