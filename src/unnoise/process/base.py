r"""What a schedule is.

Data is corrupted as :math:`x_t = \alpha(t) x_0 + \sigma(t) \varepsilon` with :math:`\varepsilon \sim N(0, I)`. Time runs
from 0, clean data, to 1, noise; the log signal-to-noise ratio :math:`\ln(\alpha^2 / \sigma^2)` falls strictly in between.
A discrete schedule has num_steps levels: level k (0 ... num_steps - 1) stands at t = (k + 1) / num_steps, and clean data,
with alpha-bar 1, is level -1. Everything is float64 and finite at both ends but for the log-SNR, which is infinite where
no noise or no signal is left.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from ..options import Checked
from ..registry import Registry


class Schedule(Checked, ABC):
    """A frozen dataclass that gives the scale of the signal and of the noise at every time.

    Times are float64 tensors of any shape with values in [0, 1]; all methods work elementwise and return float64.
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.__hash__ = Schedule.__hash__  # type: ignore[method-assign]

    # Remembered: schedules are the keys of the caches below at every step, and a table of alpha-bars is long.
    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((type(self), tuple(getattr(self, f.name) for f in dataclasses.fields(self))))  # type: ignore[arg-type]

    num_steps: int | None = None
    """The number of levels of a discrete schedule; None for one that is continuous by nature."""

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """The scale of the signal, 1 at t = 0."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """The scale of the noise, 0 at t = 0."""

    @abstractmethod
    def alpha_dot(self, t: Tensor) -> Tensor:
        """The derivative of alpha in time."""

    @abstractmethod
    def sigma_dot(self, t: Tensor) -> Tensor:
        """The derivative of sigma in time."""

    @abstractmethod
    def time_of(self, log_snr: Tensor) -> Tensor:
        """The time at which the log-SNR has a value; 0 or 1 where it lies beyond the ends."""

    @property
    @abstractmethod
    def t_min(self) -> float:
        """The smallest time with noise in it that models are trained on, and that grids in log-SNR go to before 0."""

    def log_snr(self, t: Tensor) -> Tensor:
        """ln(alpha^2 / sigma^2): +inf at t = 0, and -inf at t = 1 where no signal is left."""
        return 2 * (self.alpha(t).log() - self.sigma(t).log())

    def noise_level(self, t: Tensor) -> Tensor:
        """What a network is told of the time: the level's index for discrete schedules, else 1000 t."""
        return t * self.num_steps - 1 if self.num_steps else t * 1000

    @cached_property
    def vanishing(self) -> bool:
        """Whether no signal at all is left at t = 1."""
        return bool(self.alpha(torch.ones((), dtype=torch.float64)) == 0)


schedules: Registry[Schedule] = Registry("schedule", "unnoise.process")


@lru_cache(maxsize=65536)
def scales(schedule: Schedule, t: float) -> tuple[float, float]:
    """Alpha and sigma at one time as Python floats, remembered: samplers ask for the same times again and again."""
    at = torch.tensor(t, dtype=torch.float64)
    return float(schedule.alpha(at)), float(schedule.sigma(at))


@lru_cache(maxsize=65536)
def log_snr_at(schedule: Schedule, t: float) -> float:
    """The log-SNR at one time as a Python float."""
    alpha, sigma = scales(schedule, t)
    if sigma == 0:
        return math.inf
    return 2 * (math.log(alpha) - math.log(sigma)) if alpha else -math.inf


@lru_cache(maxsize=65536)
def time_at(schedule: Schedule, log_snr: float) -> float:
    """The time at which the log-SNR has a value, as a Python float."""
    return float(schedule.time_of(torch.tensor(log_snr, dtype=torch.float64)))
