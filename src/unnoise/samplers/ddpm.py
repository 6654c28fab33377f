"""DDPM: the reverse of the Markov chain, for the whole chain or for longer jumps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ..denoisers.base import Condition, Denoiser
from ..errors import IncompatibleParts
from ..options import option
from ..process.base import Schedule, scales
from ..process.chain import jump
from ..randomness import Noise
from .base import Sampler, Stepped, fresh_noise_step, samplers, shares

_NOT_LEARNED = "this model learned no variance: use variance posterior or beta, or train with learned_variance"


@samplers.register("ddpm")
@dataclass(frozen=True)
class DDPMSampler(Sampler):
    """The original way: every step draws from the posterior, so that it needs many steps. One network call a step.

    x_s is normal around the posterior's mean; the last step, to clean data, draws nothing.

    The variance is that of the posterior, that of the forward step ("beta"), or what the model learned between the two.

    References:
        Denoising Diffusion Probabilistic Models (Ho et al., 2020), Algorithm 2, https://arxiv.org/abs/2006.11239
        learned: Improved Denoising Diffusion Probabilistic Models (Nichol & Dhariwal, 2021), Section 3.1
    """

    variants = ({}, {"variance": "beta"})
    order = 1
    stochastic = True

    variance: Literal["posterior", "beta", "learned"] = option("posterior", help="posterior, beta or learned")

    def check(self, denoiser: Denoiser, grid: Tensor) -> None:
        """See `Sampler.check`: a variance that is to be taken must have been learned."""
        if self.variance == "learned" and not denoiser.learns_variance:
            raise IncompatibleParts(_NOT_LEARNED)

    def kept_noise(self, schedule: Schedule, t: float, s: float) -> float | None:
        """That of the posterior's mean, whatever the variance; see `Sampler.kept_noise`."""
        return shares(schedule, t, s, 1.0)[0]

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
        """See `Sampler.step`.

        Raises:
            IncompatibleParts: The variance is to be learned and the model did not learn it.
        """
        schedule = denoiser.schedule
        denoised, fraction = denoiser.with_variance(x_t, t, cond)
        if self.variance == "learned" and fraction is None:
            raise IncompatibleParts(_NOT_LEARNED)
        sigma_s = scales(schedule, float(s))[1]
        if sigma_s == 0:
            return Stepped(scales(schedule, float(s))[0] * denoised, denoised, None)
        variance = jump(*scales(schedule, float(t)), *scales(schedule, float(s)))
        kept = math.sqrt(max(sigma_s**2 - variance.posterior, 0.0))
        fresh: float | Tensor = math.sqrt(variance.beta if self.variance == "beta" else variance.posterior)
        if self.variance == "learned" and fraction is not None:
            high, low = math.log(variance.beta), math.log(variance.posterior)
            fresh = torch.exp(0.5 * (fraction * high + (1 - fraction) * low))
        return Stepped(fresh_noise_step(denoised, x_t, schedule, t, s, kept, fresh, noise), denoised, None)
