"""What an objective is.

All that does not depend on the weights (noisy inputs, targets, weights of the loss) is worked out for many steps at once by
`prepare`; `losses` is what remains for one step. Small models then train at the speed of a bare loop.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from ..denoisers.base import Condition, Denoiser
from ..nn.conditions import level
from ..options import Checked
from ..process.base import Schedule
from ..registry import Registry
from .companion import Companion
from .examples import Draws as Draws
from .examples import Prepared as Prepared
from .noise import NoiseSettings
from .times import TimeDensity


class Objective(Checked, ABC):
    """A frozen dataclass: which times, and what is asked of the network there."""

    times: TimeDensity
    condition_dropout: float
    noise: NoiseSettings
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

    @property
    def has_floor(self) -> bool:
        """Whether `floors` are those of the whole loss, so that no model can come below them on average."""
        return True

    def companion(self, schedule: Schedule) -> Companion:
        """What goes beside the network through a run on a schedule; empty for most."""
        return Companion(history=self.times.history(schedule))


objectives: Registry[Objective] = Registry("objective", "unnoise.objectives")


def drop_conditions(cond: Condition | None, null: Condition, drop: Tensor) -> Condition | None:
    """A condition in which some samples ask for nothing.

    Args:
        cond: Tensors of shape (B, ...).
        null: What asks for nothing, of as many samples; its context may have another number of tokens.
        drop: Which samples, shape (B,), bool.
    """
    if cond is None:
        return None
    kept, empty = level(cond, null)
    return {
        name: torch.where(drop.reshape(-1, *[1] * (value.ndim - 1)), empty[name].to(value), value)
        for name, value in kept.items()
    }
