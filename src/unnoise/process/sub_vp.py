"""The sub-VP SDE: the signal of the variance-preserving one, with less noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .base import schedules
from .vp import LinearBetaSchedule


@schedules.register("sub_vp")
@dataclass(frozen=True)
class SubVPSchedule(LinearBetaSchedule):
    r"""The sub-VP SDE: the signal of `vp` with less noise, the square of its sigma.

    alpha = exp(-B / 2) and sigma = 1 - exp(-B), which is never more than the sigma of the VP SDE.

    alpha^2 + sigma^2 is below 1 in between. Near clean data the noise grows in proportion to the time, not to its square root.

    References:
        Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021), Equation 12 and
        Appendix C, https://arxiv.org/abs/2011.13456
    """

    def sigma(self, t: Tensor) -> Tensor:
        """1 - exp(-B), by expm1, which keeps the digits near clean data."""
        return -torch.expm1(-self.integral(t))

    def sigma_dot(self, t: Tensor) -> Tensor:
        """beta exp(-B)."""
        return self.beta(t) * torch.exp(-self.integral(t))

    def _integral_of(self, log_snr: Tensor) -> Tensor:
        # sigma / alpha = 2 sinh(B / 2)
        return 2 * torch.asinh(torch.exp(-log_snr / 2) / 2)

    @property
    def t_min(self) -> float:
        """The time at which sigma is a hundredth, as for VP; at the paper's 1e-3 it is a ten thousandth, not worth a step."""
        return float(self._time(-torch.log1p(torch.tensor(-1e-2, dtype=torch.float64))))
