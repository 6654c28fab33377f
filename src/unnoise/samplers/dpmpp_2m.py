"""DPM-Solver++, multistep: the estimate is extrapolated in log-SNR from the last two steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from torch import Tensor

from ..denoisers.base import Condition, Denoiser
from ..options import option
from ..process.base import Schedule, log_snr_at, scales
from ..randomness import Noise
from .base import Sampler, Stepped, mix, samplers


class _Past(NamedTuple):
    denoised: Tensor
    time: float


class _Weights(NamedTuple):
    """x_s = on_x x_t + on_denoised D + on_before D_before + on_noise z."""

    on_x: float
    on_denoised: float
    on_before: float
    on_noise: float


@samplers.register("dpmpp_2m")
@dataclass(frozen=True)
class DPMSolverPPSampler(Sampler):
    r"""DPM-Solver++ with the step before (2M), the default of most models: order 2 by default, one network call a step.

    With :math:`\lambda = \ln(\alpha / \sigma)`, :math:`h = \lambda_s - \lambda_t` and r the step before over this one, the
    estimate :math:`\hat x_0 + (\hat x_0 - \hat x_0^{before}) / 2r` is taken to stand still. A step to clean data, or after one
    from pure noise, has no ratio and is of first order, which leaves the order of the whole as it is.

    References:
        DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models (Lu et al., 2022), Algorithm 2 and,
        for the stochastic form, Appendix A, https://arxiv.org/abs/2211.01095
    """

    variants = ({}, {"order": 1}, {"sde": True})

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
        denoised = denoiser(x_t, t, cond)
        here, there = float(t), float(s)
        before = state if self.order == 2 else None
        w = _weights(denoiser.schedule, self.sde, before and before.time, here, there)
        x_s = mix(w.on_x, x_t, w.on_denoised, denoised)
        if before is not None and w.on_before:
            x_s = x_s.add_(before.denoised, alpha=w.on_before)
        if w.on_noise:
            assert noise is not None
            x_s = x_s.add_(noise(x_t, here, there), alpha=w.on_noise)
        return Stepped(x_s, denoised, _Past(denoised, here))


@lru_cache(maxsize=65536)
def _weights(schedule: Schedule, sde: bool, before: float | None, t: float, s: float) -> _Weights:
    (alpha_t, sigma_t), (alpha_s, sigma_s) = scales(schedule, t), scales(schedule, s)
    half_log_snr, end = log_snr_at(schedule, t) / 2, log_snr_at(schedule, s) / 2
    h = end - half_log_snr
    if sde:
        on_x, total = sigma_s / sigma_t * math.exp(-h), -alpha_s * math.expm1(-2 * h)
        on_noise = sigma_s * math.sqrt(-math.expm1(-2 * h))
    else:
        on_x, on_noise = sigma_s / sigma_t, 0.0
        total = alpha_s - on_x * alpha_t
    share = 0.0
    if before is not None and sigma_s > 0 and scales(schedule, before)[0] > 0:
        share = h / (half_log_snr - log_snr_at(schedule, before) / 2) / 2
    return _Weights(on_x, (1 + share) * total, -share * total, on_noise)
