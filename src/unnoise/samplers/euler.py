"""Euler's rule: the estimate is taken to stand still over each step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..denoisers.base import Condition, Denoiser
from ..randomness import Noise
from .base import Sampler, Stepped, samplers, toward


@samplers.register("euler")
@dataclass(frozen=True)
class EulerSampler(Sampler):
    """First order, one network call a step. The same as deterministic DDIM.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), Algorithm 1 without its
        second half, https://arxiv.org/abs/2206.00364
    """

    order = 1

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
        return Stepped(toward(denoised, x_t, denoiser.schedule, t, s), denoised, None)
