"""The straight path of flow matching."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..options import option
from .base import Schedule, schedules


@schedules.register("flow")
@dataclass(frozen=True)
class FlowSchedule(Schedule):
    r"""Data and noise mixed along a straight line: sigma = u, alpha = 1 - u with u = shift t / (1 + (shift - 1) t).

    A shift above 1 spends more of the time at high noise, which large images need.

    References:
        Flow Matching for Generative Modeling (Lipman et al., 2023), https://arxiv.org/abs/2210.02747
        Scaling Rectified Flow Transformers for High-Resolution Image Synthesis (Esser et al., 2024), Equation 23,
        https://arxiv.org/abs/2403.03206
    """

    shift: float = option(
        1.0, help="how much of the time is spent at high noise; 1 is the plain straight path", low=1e-3, high=1e3
    )

    def sigma(self, t: Tensor) -> Tensor:
        """u."""
        t = t.to(torch.float64)
        return self.shift * t / (1 + (self.shift - 1) * t)

    def alpha(self, t: Tensor) -> Tensor:
        """1 - u, written so that no digit is lost near noise."""
        t = t.to(torch.float64)
        return (1 - t) / (1 + (self.shift - 1) * t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        """The rate of u."""
        return self.shift / (1 + (self.shift - 1) * t.to(torch.float64)) ** 2

    def alpha_dot(self, t: Tensor) -> Tensor:
        """Minus the rate of u."""
        return -self.sigma_dot(t)

    def time_of(self, log_snr: Tensor) -> Tensor:
        """From u = 1 / (1 + exp(log_snr / 2))."""
        u = torch.sigmoid(-log_snr.to(torch.float64) / 2)
        return u / (self.shift - (self.shift - 1) * u)

    @property
    def t_min(self) -> float:
        """The time at which u is one thousandth."""
        return 1e-3 / (self.shift - (self.shift - 1) * 1e-3)
