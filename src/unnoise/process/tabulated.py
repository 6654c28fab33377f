"""Schedules given by a table of alpha-bars, one for each level of a discrete chain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..errors import BadOption
from ..options import option
from .base import Schedule, schedules


class DiscreteSchedule(Schedule):
    r"""A variance-preserving schedule with a table of alpha-bars, also defined between its levels.

    Between two levels the angle atan2(sigma, alpha) is interpolated linearly. alpha is its cosine and sigma its sine, so that
    both, and their derivatives, are finite from clean data to the last level, even where that holds no signal.
    """

    num_steps: int

    @cached_property
    def alpha_bars(self) -> Tensor:
        """Cumulative products of 1 - beta, shape (num_steps,), float64."""
        return torch.cumprod(1 - self.betas, 0)

    @cached_property
    def betas(self) -> Tensor:
        """The variance that each step adds, shape (num_steps,), float64."""
        before = torch.cat([torch.ones(1, dtype=torch.float64), self.alpha_bars[:-1]])
        return 1 - self.alpha_bars / before

    @cached_property
    def _angles(self) -> Tensor:
        # asin keeps the digits of small sigmas, acos those of small alphas.
        sigma, alpha = (1 - self.alpha_bars).sqrt(), self.alpha_bars.sqrt()
        angles = torch.where(sigma < alpha, sigma.asin(), alpha.acos())
        return torch.cat([torch.zeros(1, dtype=torch.float64), angles])

    def _segment(self, t: Tensor) -> tuple[Tensor, Tensor]:
        place = t.to(torch.float64) * self.num_steps
        low = place.floor().clamp(0, self.num_steps - 1)
        return low.long(), place - low

    def _angle(self, t: Tensor) -> Tensor:
        low, part = self._segment(t)
        angles = self._angles
        return torch.lerp(angles[low], angles[low + 1], part)

    def _angle_dot(self, t: Tensor) -> Tensor:
        low, _ = self._segment(t)
        return (self._angles[low + 1] - self._angles[low]) * self.num_steps

    def alpha(self, t: Tensor) -> Tensor:
        """The cosine of the angle."""
        angle = self._angle(t)
        return torch.where(angle == torch.pi / 2, 0.0, angle.cos())

    def sigma(self, t: Tensor) -> Tensor:
        """The sine of the angle."""
        return self._angle(t).sin()

    def alpha_dot(self, t: Tensor) -> Tensor:
        """Minus the sine of the angle, times its rate."""
        return -self.sigma(t) * self._angle_dot(t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        """The cosine of the angle, times its rate."""
        return self.alpha(t) * self._angle_dot(t)

    def time_of(self, log_snr: Tensor) -> Tensor:
        """The inverse of the interpolation."""
        angle = torch.atan(torch.exp(-log_snr.to(torch.float64) / 2)).clamp(max=float(self._angles[-1]))
        low = (torch.searchsorted(self._angles, angle) - 1).clamp(0, self.num_steps - 1)
        part = (angle - self._angles[low]) / (self._angles[low + 1] - self._angles[low])
        return (low + part) / self.num_steps

    @property
    def t_min(self) -> float:
        """The time of level 0."""
        return 1 / self.num_steps

    def zero_terminal_snr(self) -> TabulatedSchedule:
        """This schedule, shifted and scaled so that no signal is left at its last level and the first one stays.

        References:
            Common Diffusion Noise Schedules and Sample Steps are Flawed (Lin et al., 2024), Algorithm 1,
            https://arxiv.org/abs/2305.08891
        """
        root = self.alpha_bars.sqrt()
        rescaled = (root - root[-1]) * root[0] / (root[0] - root[-1])
        return TabulatedSchedule(tuple((rescaled**2).tolist()))


@schedules.register("tabulated")
@dataclass(frozen=True)
class TabulatedSchedule(DiscreteSchedule):
    """Any falling table of alpha-bars, such as another project's.

    Args:
        values: Alpha-bar of each level, below 1, strictly falling, the last at least 0.

    Raises:
        BadOption: The table is not so.
    """

    values: tuple[float, ...] = option(
        help="alpha-bar of each level, strictly falling from below 1 to 0 or more", low=0.0
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(float(v) for v in self.values))
        super().__post_init__()
        ends = (1.0, *self.values)
        falling = all(a > b for a, b in zip(ends, ends[1:], strict=False))
        if not self.values or not falling or self.values[-1] < 0:
            raise BadOption("values: expected alpha-bars that fall strictly from below 1 to 0 or more")

    @property
    def num_steps(self) -> int:  # type: ignore[override]
        """The number of levels."""
        return len(self.values)

    @cached_property
    def alpha_bars(self) -> Tensor:
        """The table, shape (num_steps,), float64."""
        return torch.tensor(self.values, dtype=torch.float64)

    @classmethod
    def of(cls, alpha_bars: Sequence[float] | Tensor) -> TabulatedSchedule:
        """The schedule of a table in any sequence or tensor of shape (num_steps,)."""
        return cls(tuple(float(a) for a in alpha_bars))
