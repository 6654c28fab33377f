"""DDIM: the noise found in x_t is carried over, or drawn afresh in part; without fresh noise it runs both ways."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..denoisers.base import Condition, Denoiser
from ..errors import IncompatibleParts
from ..options import option
from ..process.base import Schedule, scales
from ..randomness import Noise
from .base import Sampler, Stepped, mix, samplers, shares
from .euler import euler_step


class Coefficients(NamedTuple):
    """x_s = on_x x_t + on_denoised D + fresh z."""

    on_x: float
    on_denoised: float
    fresh: float


@lru_cache(maxsize=65536)
def coefficients(schedule: Schedule, t: float, s: float, eta: float) -> Coefficients:
    """What a step from t to s with a share of fresh noise is made of; see `shares`."""
    (alpha_t, sigma_t), (alpha_s, _) = scales(schedule, t), scales(schedule, s)
    kept, fresh = shares(schedule, t, s, eta)
    return Coefficients(kept / sigma_t, alpha_s - kept / sigma_t * alpha_t, fresh)


@samplers.register("ddim")
@dataclass(frozen=True)
class DDIMSampler(Sampler):
    r"""The estimate of the clean data, noised to the next level: with the noise found, or by eta fresh. One network call a step.

    .. math:: x_s = \alpha_s \hat x_0 + \sqrt{\sigma_s^2 - \eta^2 \tilde\beta}\, \hat\varepsilon + \eta \sqrt{\tilde\beta}\, z

    Deterministic at eta 0; DDPM with the posterior's variance at eta 1. At eta 0 it also runs over a rising grid, from data to
    the noise that it comes from; there and back is exact up to the error of first order.

    References:
        Denoising Diffusion Implicit Models (Song et al., 2021), Equations 12 and 16, and Section 4.3 for the way up,
        https://arxiv.org/abs/2010.02502
    """

    variants = ({}, {"eta": 0.5}, {"eta": 1.0})
    order = 1
    inverts = True

    eta: float = option(0.0, help="how much noise is drawn afresh: 0 none, 1 as much as DDPM", low=0.0, high=1.0)

    @property
    def stochastic(self) -> bool:  # type: ignore[override]
        """Whether eta is above 0."""
        return self.eta > 0

    def check(self, denoiser: Denoiser, grid: Tensor) -> None:
        """See `Sampler.check`."""
        if self.eta > 0 and float(grid[0]) < float(grid[-1]):
            raise IncompatibleParts(
                f"ddim with eta {self.eta} draws noise and cannot run from data to noise: take eta 0"
            )

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
        if self.eta == 0:
            return euler_step(denoiser, x_t, t, s, cond)
        denoised = denoiser(x_t, t, cond)
        on_x, on_denoised, fresh = coefficients(denoiser.schedule, float(t), float(s), self.eta)
        x_s = mix(on_x, x_t, on_denoised, denoised)
        if fresh:
            assert noise is not None
            x_s = torch.add(x_s, noise(x_t, float(t), float(s)), alpha=fresh)
        return Stepped(x_s, denoised, None)
