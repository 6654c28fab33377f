"""Euler and Maruyama's rule for the reverse SDE: the method that every other stochastic sampler is measured against."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ..denoisers.base import Condition, Denoiser
from ..options import option
from ..process.base import Schedule, log_snr_at, scales
from ..process.sde import ForwardSDE
from ..randomness import Noise
from .base import Sampler, Stepped, mix, samplers


@samplers.register("euler_maruyama")
@dataclass(frozen=True)
class EulerMaruyamaSampler(Sampler):
    r"""The reverse SDE by its simplest rule: a straight step in time and fresh noise. Needs many steps; one network call each.

    The drift stands still over the step, and noise of variance g^2 times its length is added.

    .. math:: x_s = x_t - (t - s) \left(f x_t - \tfrac{1 + \lambda^2}{2} g^2 \nabla \log p_t(x_t)\right)
        + \lambda g \sqrt{t - s}\, z

    It knows nothing of the process, so it needs many more steps than samplers that solve the linear part exactly (`ddpm`,
    `dpmpp_2m` with sde). Where it would overshoot, and turn the sign of the noise in x_t, the step is the exact one for an
    estimate that stands still: from where little or no signal is left, with its drift without bound, and down to clean data,
    which it reaches as the estimate itself. So it is finite from any start and for any number of steps.

    References:
        Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021), Equation 6 and
        Section 4.1, https://arxiv.org/abs/2011.13456
    """

    variants = ({}, {"stochasticity": 0.5})
    order = 1

    stochasticity: float = option(
        1.0,
        help="lambda: 1 solves the reverse SDE, 0 the probability-flow ODE, which draws no noise",
        low=0.0,
        high=1.0,
    )

    @property
    def stochastic(self) -> bool:  # type: ignore[override]
        """Whether the stochasticity is above 0."""
        return self.stochasticity > 0

    def step(
        self,
        denoiser: Denoiser,
        x_t: Tensor,
        t: Tensor,
        s: Tensor,
        state: Any,
        *,
        cond: Condition | None = None,
        noise: Noise | None = None,
    ) -> Stepped:
        """See `Sampler.step`."""
        schedule = denoiser.schedule
        denoised = denoiser(x_t, t, cond)
        on_x, on_denoised, fresh = _coefficients(schedule, float(t), float(s), self.stochasticity)
        x_s = mix(on_x, x_t, on_denoised, denoised)
        if fresh:
            assert noise is not None
            x_s = torch.add(x_s, noise(x_t, float(t), float(s)), alpha=fresh)
        return Stepped(x_s, denoised, None)


@lru_cache(maxsize=65536)
def _coefficients(schedule: Schedule, t: float, s: float, stochasticity: float) -> tuple[float, float, float]:
    """The factors of x_t, of the estimate and of the noise."""
    at, length = torch.tensor(t, dtype=torch.float64), t - s
    (alpha, sigma), (alpha_s, sigma_s) = scales(schedule, t), scales(schedule, s)
    if alpha and sigma_s:
        alpha_dot, sigma_dot = float(schedule.alpha_dot(at)), float(schedule.sigma_dot(at))
        variance = stochasticity**2 * float(ForwardSDE(schedule).diffusion_squared(at))
        # The drift as a multiple of the noise in x_t, (x_t - alpha D) / sigma, plus a multiple of the estimate D.
        on_noise = (sigma_dot + variance / (2 * sigma)) / sigma
        if length * on_noise < 1:
            return 1 - length * on_noise, length * (alpha * on_noise - alpha_dot), math.sqrt(variance * length)
    # Exact: lambda^2 / 2 of the growth of the log-SNR is how fast the noise that was there is forgotten.
    growth = log_snr_at(schedule, s) - log_snr_at(schedule, t)
    kept = math.exp(-(stochasticity**2) / 2 * growth) if stochasticity else 1.0
    on_x = kept * sigma_s / sigma
    return on_x, alpha_s - on_x * alpha, sigma_s * math.sqrt(1 - kept**2)
