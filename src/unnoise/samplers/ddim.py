"""DDIM: the noise found in x_t is carried over, or drawn afresh in part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..denoisers.base import Condition, Denoiser
from ..options import option
from ..randomness import Noise
from .base import Sampler, Stepped, fresh_noise_step, samplers, shares


@samplers.register("ddim")
@dataclass(frozen=True)
class DDIMSampler(Sampler):
    r""":math:`x_s = \alpha_s \hat x_0 + \sqrt{\sigma_s^2 - \eta^2 \tilde\beta}\, \hat\varepsilon + \eta \sqrt{\tilde\beta}\, z`.

    Deterministic at eta 0; DDPM with the posterior's variance at eta 1.

    References:
        Denoising Diffusion Implicit Models (Song et al., 2021), Equations 12 and 16, https://arxiv.org/abs/2010.02502
    """

    order = 1

    eta: float = option(0.0, help="how much noise is drawn afresh: 0 none, 1 as much as DDPM", low=0.0, high=1.0)

    @property
    def stochastic(self) -> bool:  # type: ignore[override]
        """Whether eta is above 0."""
        return self.eta > 0

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
        kept, fresh = shares(schedule, t, s, self.eta)
        return Stepped(fresh_noise_step(denoised, x_t, schedule, t, s, kept, fresh, noise), denoised, None)
