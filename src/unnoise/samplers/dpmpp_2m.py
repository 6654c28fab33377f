"""DPM-Solver++, multistep: the estimate is extrapolated in log-SNR from the last two steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..denoisers.base import Condition, Denoiser
from ..options import option
from ..process.base import log_snr_at, scales
from ..randomness import Noise
from .base import Sampler, Stepped, samplers, toward


class _Past(NamedTuple):
    denoised: Tensor
    half_log_snr: float


@samplers.register("dpmpp_2m")
@dataclass(frozen=True)
class DPMSolverPPSampler(Sampler):
    r"""One network call a step; order 2 by default.

    With :math:`\lambda = \ln(\alpha / \sigma)`, :math:`h = \lambda_s - \lambda_t` and r the step before over this one, the
    estimate :math:`\hat x_0 + (\hat x_0 - \hat x_0^{before}) / 2r` is taken to stand still. A step to clean data, or after one
    from pure noise, has no ratio and is of first order, which leaves the order of the whole as it is.

    References:
        DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models (Lu et al., 2022), Algorithm 2 and,
        for the stochastic form, Appendix A, https://arxiv.org/abs/2211.01095
    """

    order: int = option(2, help="1 extrapolates nothing, 2 in a straight line", low=1, high=2)
    sde: bool = option(False, help="solve the reverse SDE instead of the ODE, drawing fresh noise")

    @property
    def stochastic(self) -> bool:  # type: ignore[override]
        """Whether the SDE is solved."""
        return self.sde

    def step(
        self,
        denoiser: Denoiser,
        x_t: Tensor,
        t: Tensor,
        s: Tensor,
        state: _Past | None,
        *,
        cond: Condition | None = None,
        noise: Noise | None = None,
    ) -> Stepped:
        """See `Sampler.step`."""
        schedule = denoiser.schedule
        denoised = denoiser(x_t, t, cond)
        here, there = log_snr_at(schedule, float(t)) / 2, log_snr_at(schedule, float(s)) / 2
        estimate = denoised
        if state is not None and self.order == 2 and math.isfinite(there) and math.isfinite(state.half_log_snr):
            share = (there - here) / (here - state.half_log_snr) / 2
            estimate = torch.add((1 + share) * denoised, state.denoised, alpha=-share)
        past = _Past(denoised, here)
        if not self.sde:
            return Stepped(toward(estimate, x_t, schedule, t, s), denoised, past)
        return Stepped(self._sde_step(estimate, x_t, denoiser, t, s, there - here, noise), denoised, past)

    @staticmethod
    def _sde_step(
        estimate: Tensor, x_t: Tensor, denoiser: Denoiser, t: Tensor, s: Tensor, h: float, noise: Noise | None
    ) -> Tensor:
        (_, sigma_t), (alpha_s, sigma_s) = (scales(denoiser.schedule, float(time)) for time in (t, s))
        fresh = -math.expm1(-2 * h)
        if sigma_s == 0:
            return alpha_s * estimate
        assert noise is not None
        x_s = torch.add(sigma_s / sigma_t * math.exp(-h) * x_t, estimate, alpha=alpha_s * fresh)
        return torch.add(x_s, noise(x_t, float(t), float(s)), alpha=sigma_s * math.sqrt(fresh))
