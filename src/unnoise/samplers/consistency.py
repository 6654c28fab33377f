"""Consistency sampling: jump to clean data, add fresh noise up to the next level, jump again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..denoisers.base import Condition, Denoiser
from ..process.base import scales
from ..randomness import Noise
from .base import Sampler, Stepped, samplers


@samplers.register("consistency")
@dataclass(frozen=True)
class ConsistencySampler(Sampler):
    r"""For consistency models such as LCM: an estimate of the clean data, fresh noise on it, and again. One network call a step.

    .. math:: x_s = \alpha_s D(x_t, t) + \sigma_s z

    For consistency models, latent ones (LCM) included: their network does not give the mean of the clean data but the end of
    the ODE's path through x_t, so that one step is a sample and more steps mend what the network gets wrong. With an ordinary
    denoiser it samples another distribution than the data's, of means of means; no number of steps changes that.

    References:
        Consistency Models (Song et al., 2023), Algorithm 1, https://arxiv.org/abs/2303.01469
        Latent Consistency Models (Luo et al., 2023), Algorithm 3, https://arxiv.org/abs/2310.04378
    """

    order = None
    wants_consistency = True
    stochastic = True

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
        alpha_s, sigma_s = scales(denoiser.schedule, float(s))
        if sigma_s == 0:
            return Stepped(alpha_s * denoised, denoised, None)
        assert noise is not None
        return Stepped(torch.add(alpha_s * denoised, noise(x_t, float(t), float(s)), alpha=sigma_s), denoised, None)
