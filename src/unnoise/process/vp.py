"""The variance-preserving SDE in continuous time, and the line of betas that it shares with its kin."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from ..options import option
from .base import Schedule, schedules

SMALLEST = 1e-12
"""A time so near to 0 that no sample sees the difference; see `VPSchedule.sigma_dot`."""


@dataclass(frozen=True)
class LinearBetaSchedule(Schedule):
    r"""The signal of an SDE with drift :math:`-\beta(t) x / 2`, where beta rises in a line from beta_min to beta_max.

    With B(t) the integral of beta from 0 to t, alpha = exp(-B / 2). What the noise is, its kin say.
    """

    beta_min: float = option(0.1, help="beta at clean data", low=1e-6, high=1000.0)
    beta_max: float = option(20.0, help="beta at noise", low=1.0, high=1000.0)

    def beta(self, t: Tensor) -> Tensor:
        """From beta_min to beta_max."""
        return self.beta_min + t.to(torch.float64) * (self.beta_max - self.beta_min)

    def integral(self, t: Tensor) -> Tensor:
        """B, the integral of beta from 0 to t."""
        t = t.to(torch.float64)
        return t * (self.beta_min + t * ((self.beta_max - self.beta_min) / 2))

    def alpha(self, t: Tensor) -> Tensor:
        """exp(-B / 2)."""
        return torch.exp(-self.integral(t) / 2)

    def alpha_dot(self, t: Tensor) -> Tensor:
        """-beta alpha / 2."""
        return -self.beta(t) * self.alpha(t) / 2

    def time_of(self, log_snr: Tensor) -> Tensor:
        """From B."""
        return self._time(self._integral_of(log_snr.to(torch.float64)))

    def _time(self, integral: Tensor) -> Tensor:
        # The root of a parabola, in the form in which nothing cancels near 0.
        integral = integral.clamp(max=(self.beta_min + self.beta_max) / 2)
        root = (self.beta_min**2 + 2 * (self.beta_max - self.beta_min) * integral).sqrt()
        return 2 * integral / (self.beta_min + root)

    @abstractmethod
    def _integral_of(self, log_snr: Tensor) -> Tensor:
        """B where the log-SNR has a value; infinite where it is without signal."""


@schedules.register("vp")
@dataclass(frozen=True)
class VPSchedule(LinearBetaSchedule):
    r"""The VP SDE: DDPM's chain in the limit of many levels, its beta rising linearly.

    alpha = exp(-B / 2) and sigma = sqrt(1 - exp(-B)).

    References:
        Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021), Equation 11 and
        Appendix C, https://arxiv.org/abs/2011.13456
    """

    def sigma(self, t: Tensor) -> Tensor:
        """sqrt(1 - exp(-B)), by expm1, which keeps the digits near clean data."""
        return (-torch.expm1(-self.integral(t))).sqrt()

    def sigma_dot(self, t: Tensor) -> Tensor:
        """beta alpha^2 / (2 sigma); sigma leaves 0 as a square root, so at t = 0 the rate at t = 1e-12 stands for infinity."""
        t = t.to(torch.float64).clamp(min=SMALLEST)
        return self.beta(t) * torch.exp(-self.integral(t)) / (2 * self.sigma(t))

    def _integral_of(self, log_snr: Tensor) -> Tensor:
        # sigma^2 / alpha^2 = exp(B) - 1
        return torch.logaddexp(torch.zeros_like(log_snr), -log_snr)

    @property
    def t_min(self) -> float:
        """The time at which sigma is a hundredth, as at the first level of DDPM: about 1e-3, where the paper's sampling ends."""
        return float(self._time(-torch.log1p(torch.tensor(-1e-4, dtype=torch.float64))))
