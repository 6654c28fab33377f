"""What an optimizer is: settings, and one update of all weights. What it remembers stands beside it, in `Memory`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...options import Checked
from ...registry import Registry
from ..flat import Flat
from ..parallel import ALONE


class Memory:
    """The weights of a run, their gradient, and what an optimizer remembers from update to update.

    Args:
        weights: What is trained.
        gradients: Of the loss by the weights, laid out alike.
        moments: What is remembered, by the name that a checkpoint has for it; laid out alike, or for some of the weights only.

    Attributes:
        processes: That have the same weights and the same gradient, and may share the work of an update.
        records: Whether a GPU may record what is always done alike, and replay it.
        plan: What an optimizer found out once about all updates.
    """

    def __init__(self, weights: Flat, gradients: Flat, moments: dict[str, Flat]) -> None:
        self.weights, self.gradients, self.moments = weights, gradients, moments
        self.processes = ALONE
        self.records = False
        self.plan: object = None
        self.updates = torch.zeros((), dtype=torch.float32, device=weights.vector.device)

    @property
    def matrices(self) -> list[int]:
        """Which weights are matrices or kernels, and not vectors such as biases."""
        return [i for i, view in enumerate(self.weights.views) if view.ndim >= 2]

    def slots(self) -> Iterator[tuple[str, Tensor]]:
        """What is remembered, by the names that a checkpoint has for it."""
        for prefix, flat in self.moments.items():
            yield from flat.named(prefix).items()
        yield "updates", self.updates

    def decay(self, share: float, only_matrices: bool) -> None:
        """Takes a share of the weights away."""
        if share and only_matrices:
            torch._foreach_mul_([self.weights.views[i] for i in self.matrices], 1 - share)
        elif share:
            self.weights.vector.mul_(1 - share)


@dataclass(frozen=True)
class Rate:
    """What an update is told.

    Args:
        learning_rate: Of this update.
        betas: Memory of the moving averages of the gradient and of its square.
        weight_decay: How much of the weights goes away, as a share of the learning rate.
        only_matrices: Whether that spares vectors: biases, and the scales of normalisations.
    """

    learning_rate: float
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    only_matrices: bool = False


class Optimizer(Checked, ABC):
    """A frozen dataclass: settings only."""

    moments: ClassVar[tuple[str, ...]]
    """The names of what is remembered for each weight."""
    proportional: ClassVar[bool] = False
    """Whether a step is as long as the gradient; all others are as long whatever the gradient's scale."""

    elementwise: ClassVar[bool] = True
    """Whether every weight goes its own way, so that weights may be spread over processes."""

    def begin(self, weights: Flat, gradients: Flat) -> Memory:
        """A memory in which nothing has happened yet."""
        return Memory(weights, gradients, {name: weights.another() for name in self.moments})

    @abstractmethod
    def update(self, memory: Memory, rate: Rate) -> None:
        """Changes the weights, and what is remembered, in place; the gradient may be changed too.

        Args:
            memory: With the gradient of this update.
            rate: Of this update.
        """

    def at_once(self, memory: Memory, rate: Rate, clip: float, average: Tensor, share: float) -> float | None:
        """An update with all that goes with it in one pass over memory, where there is a kernel for that; else nothing is done.

        The gradient is clipped before and zeroed after it, and the new weights are brought into their average.

        Args:
            memory: See `update`.
            rate: See `update`.
            clip: Largest norm of the gradient; 0 for no limit.
            average: Of the weights, a vector.
            share: Of the new weights in their average.

        Returns:
            The norm of the gradient before clipping; None if nothing was done.
        """
        return None


optimizers: Registry[Optimizer] = Registry("optimizer", "unnoise.training.optimizers")


def adamw(
    weights: list[Tensor],
    gradients: list[Tensor],
    first: list[Tensor],
    second: list[Tensor],
    updates: Tensor,
    rate: Rate,
    eps: float,
    decay: float = 0.0,
) -> None:
    """One fused update of AdamW, in place.

    Args:
        weights: Of any shapes; those of the next three are like them.
        gradients: Of the loss.
        first: Moving averages of the gradients.
        second: Moving averages of their squares.
        updates: Made so far, this one among them; 0-dimensional.
        rate: The learning rate and the two memories.
        eps: Added to the root of the second.
        decay: Of the weights, as a share of the learning rate.
    """
    torch._fused_adamw_(
        weights, gradients, first, second, [], [updates] * len(weights), lr=rate.learning_rate, beta1=rate.betas[0],
        beta2=rate.betas[1], weight_decay=decay, eps=eps, amsgrad=False, maximize=False,
    )  # fmt: skip
