"""Euler's rule: the estimate is taken to stand still over each step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..denoisers.base import Condition, Denoiser
from ..process.base import scales
from ..randomness import Noise
from .base import Sampler, Stepped, samplers, toward


def euler_step(denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, cond: Condition | None = None) -> Stepped:
    """One step of first order from t to s, down to less noise or up to more.

    From clean data, about which no network can be asked, the noise found in alpha_s x_0 at s is taken: as if the step had
    been made backwards from there.

    Args:
        denoiser: Gives E[x_0 | x_t, cond].
        x_t: Shape (B, ...).
        t: Where x_t is, shape ().
        s: Where to go, shape ().
        cond: What is asked for.
    """
    if float(t) == 0:
        signal = scales(denoiser.schedule, float(s))[0] * x_t
        denoised = denoiser(signal, s, cond)
        alpha = scales(denoiser.schedule, float(s))[0]
        return Stepped((2 * signal).sub_(denoised, alpha=alpha), denoised, None)
    denoised = denoiser(x_t, t, cond)
    return Stepped(toward(denoised, x_t, denoiser.schedule, t, s), denoised, None)


@samplers.register("euler")
@dataclass(frozen=True)
class EulerSampler(Sampler):
    """Euler's rule: a straight step along the slope, the same as deterministic DDIM. First order, one network call a step.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), Algorithm 1 without its
        second half, https://arxiv.org/abs/2206.00364
    """

    order = 1
    inverts = True

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
        return euler_step(denoiser, x_t, t, s, cond)
