"""What an objective is.

All that does not depend on the weights (noisy inputs, targets, weights of the loss) is worked out for many steps at once by
`prepare`; `losses` is what remains for one step. Small models then train at the speed of a bare loop.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from ..denoisers.base import Condition, Denoiser
from ..options import Checked
from ..registry import Registry
from .times import TimeDensity


class Draws(NamedTuple):
    """Examples to learn from, each at its own time with its own noise."""

    x_0: Tensor  # (B, ...)
    eps: Tensor  # (B, ...)
    t: Tensor  # (B,), float64
    cond: Condition | None


class Prepared(NamedTuple):
    """Draws, ready for the network; every tensor has the batch first, so that steps are slices."""

    inputs: Tensor  # (B, ...), scaled to unit variance
    noise_level: Tensor  # (B,)
    cond: Condition | None
    target: Tensor  # (B, ...)
    weight: Tensor  # (B,)
    draws: Draws

    def slice(self, first: int, last: int) -> Prepared:
        """The examples first ... last - 1."""
        part = slice(first, last)
        cond = None if self.cond is None else {name: value[part] for name, value in self.cond.items()}
        d = self.draws
        draws = Draws(d.x_0[part], d.eps[part], d.t[part], cond)
        return Prepared(self.inputs[part], self.noise_level[part], cond, self.target[part], self.weight[part], draws)

    def to(self, device: torch.device) -> Prepared:
        """The same on another device; times stay where they are."""
        if self.inputs.device == device:
            return self
        cond = None if self.cond is None else {name: value.to(device) for name, value in self.cond.items()}
        draws = Draws(self.draws.x_0.to(device), self.draws.eps.to(device), self.draws.t, cond)
        return Prepared(
            self.inputs.to(device),
            self.noise_level.to(device),
            cond,
            self.target.to(device),
            self.weight.to(device),
            draws,
        )


class Objective(Checked, ABC):
    """A frozen dataclass: which times, and what is asked of the network there."""

    times: TimeDensity
    condition_dropout: float
    learns_variance: bool = False
    """Whether the network's output is doubled to learn a variance."""

    @abstractmethod
    def prepare(self, denoiser: Denoiser, draws: Draws) -> Prepared:
        """All of the loss that does not depend on the weights."""

    @abstractmethod
    def losses(self, denoiser: Denoiser, prepared: Prepared) -> Tensor:
        """The loss of every example, shape (B,)."""

    @abstractmethod
    def floors(self, denoiser: Denoiser, oracle: Denoiser, draws: Draws) -> Tensor:
        """The loss of every example that the exact denoiser of the data would have, shape (B,), float64."""


objectives: Registry[Objective] = Registry("objective", "unnoise.objectives")


def drop_conditions(cond: Condition | None, null: Condition, drop: Tensor) -> Condition | None:
    """A condition in which some samples ask for nothing.

    Args:
        cond: Tensors of shape (B, ...).
        null: What asks for nothing, same shapes.
        drop: Which samples, shape (B,), bool.
    """
    if cond is None:
        return None
    return {
        name: torch.where(drop.reshape(-1, *[1] * (value.ndim - 1)), null[name].to(value), value)
        for name, value in cond.items()
    }
