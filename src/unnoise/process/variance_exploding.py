"""The variance-exploding schedule in the time of EDM."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import BadOption
from ..options import option
from .base import Schedule, schedules


@schedules.register("variance_exploding")
@dataclass(frozen=True)
class VarianceExplodingSchedule(Schedule):
    r"""The signal keeps its scale and noise is added on top, as in EDM: sigma from 0 to sigma_max.

    alpha is 1.

    Time is that of EDM's grid, :math:`k(t) = (a + t (b - a))^\rho` with :math:`a^\rho = \sigma_{min}`,
    :math:`b^\rho = \sigma_{max}`, moved so that it begins at exactly 0:
    :math:`\sigma(t) = (k(t) - \sigma_{min}) \sigma_{max} / (\sigma_{max} - \sigma_{min})`.
    Steps of equal time are then steps that suit the solvers, and sigma is smooth down to clean data.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), Equation 5,
        https://arxiv.org/abs/2206.00364
    """

    sigma_min: float = option(0.002, help="smallest noise that models are trained on", low=1e-8)
    sigma_max: float = option(80.0, help="noise at t = 1", low=1e-6)
    rho: float = option(7.0, help="how much of the time is spent at low noise", low=1.0, high=100.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sigma_max <= self.sigma_min:
            raise BadOption(f"sigma_max: must be more than sigma_min ({self.sigma_min}), got {self.sigma_max}")

    @property
    def _roots(self) -> tuple[float, float]:
        return self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)

    @property
    def _stretch(self) -> float:
        return self.sigma_max / (self.sigma_max - self.sigma_min)

    def alpha(self, t: Tensor) -> Tensor:
        """1."""
        return torch.ones_like(t, dtype=torch.float64)

    def sigma(self, t: Tensor) -> Tensor:
        """From 0 to sigma_max."""
        a, b = self._roots
        ratio = t.to(torch.float64) * ((b - a) / a)
        # expm1 and log1p keep the digits of sigma near clean data, where the two powers would cancel.
        return self.sigma_min * self._stretch * torch.expm1(self.rho * torch.log1p(ratio))

    def alpha_dot(self, t: Tensor) -> Tensor:
        """0."""
        return torch.zeros_like(t, dtype=torch.float64)

    def sigma_dot(self, t: Tensor) -> Tensor:
        """The rate of sigma."""
        a, b = self._roots
        return self._stretch * self.rho * (b - a) * (a + t.to(torch.float64) * (b - a)) ** (self.rho - 1)

    def time_of(self, log_snr: Tensor) -> Tensor:
        """From sigma = exp(-log_snr / 2)."""
        a, b = self._roots
        sigma = torch.exp(-log_snr.to(torch.float64) / 2).clamp(max=self.sigma_max)
        return torch.expm1(torch.log1p(sigma / (self.sigma_min * self._stretch)) / self.rho) * (a / (b - a))

    @property
    def t_min(self) -> float:
        """The time at which sigma is sigma_min."""
        log_snr = torch.tensor(self.sigma_min, dtype=torch.float64).log() * -2
        return float(self.time_of(log_snr))
