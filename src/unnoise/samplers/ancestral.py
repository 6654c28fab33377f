"""Ancestral sampling: Euler's rule to a lower noise level, then fresh noise up to the level wanted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..denoisers.base import Condition, Denoiser
from ..options import option
from ..process.base import Schedule
from ..randomness import Noise
from .base import Sampler, Stepped, mix, samplers, shares
from .ddim import coefficients


@samplers.register("ancestral")
@dataclass(frozen=True)
class AncestralSampler(Sampler):
    """Euler ancestral, as in k-diffusion: a step below the noise wanted, and fresh noise up to it. One network call a step.

    With noise_scale 1 it draws from the same distributions as DDIM with eta.

    References:
        Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021), Appendix F,
        https://arxiv.org/abs/2011.13456
    """

    variants = ({}, {"eta": 0.0}, {"eta": 0.6})
    order = 1

    eta: float = option(
        1.0, help="how much noise is drawn afresh: 0 none, 1 as much as the posterior has", low=0.0, high=1.0
    )
    noise_scale: float = option(
        1.0, help="factor on the fresh noise; a little above 1 brings back lost detail", low=0.0, high=2.0
    )

    @property
    def stochastic(self) -> bool:  # type: ignore[override]
        """Whether eta is above 0."""
        return self.eta > 0

    def kept_noise(self, schedule: Schedule, t: float, s: float) -> float | None:
        """See `Sampler.kept_noise`."""
        return shares(schedule, t, s, self.eta)[0] if self.eta else super().kept_noise(schedule, t, s)

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
        denoised = denoiser(x_t, t, cond)
        on_x, on_denoised, fresh = coefficients(denoiser.schedule, float(t), float(s), self.eta)
        x_s = mix(on_x, x_t, on_denoised, denoised)
        if fresh and self.noise_scale:
            assert noise is not None
            x_s = torch.add(x_s, noise(x_t, float(t), float(s)), alpha=fresh * self.noise_scale)
        return Stepped(x_s, denoised, None)
