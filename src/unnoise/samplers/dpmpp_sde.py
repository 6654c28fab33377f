"""SDE-DPM-Solver++(2S): the reverse SDE by two stages a step, with one path of noise through both."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ..denoisers.base import Condition, Denoiser
from ..options import option
from ..process.base import Schedule
from ..randomness import Noise
from .base import Sampler, Stepped, mix, samplers
from .coordinates import data_line, noise_line
from .ddim import Coefficients, coefficients
from .euler import euler_step
from .stages import between, moment


@lru_cache(maxsize=65536)
def plan_of(schedule: Schedule, t: float, s: float, eta: float) -> tuple[float, Coefficients, Coefficients, float]:
    """The middle of the step, the moves to it and to s, and the correlation of the noise to the middle with the noise to s."""
    middle = between(schedule, t, s, 0.5)
    signal = data_line(schedule, t).k  # over noise; 0 where sigma / alpha is infinite
    shared = math.sqrt((1 - signal * noise_line(schedule, middle).k) / (1 - signal * noise_line(schedule, s).k))
    return middle, coefficients(schedule, t, middle, eta), coefficients(schedule, t, s, eta), shared


@samplers.register("dpmpp_sde")
@dataclass(frozen=True)
class DPMSolverPPSDESampler(Sampler):
    r"""DPM-Solver++ of the reverse SDE: fresh noise in every step but the last. Two network calls a step.

    A step that ends at clean data needs one, and draws no noise.

    The estimate in the middle of the step, in log-SNR, is taken after fresh noise; it stands for the whole step. The noise to
    the middle and that to s are of one Brownian motion in :math:`k = \sigma / \alpha`, as in k-diffusion, and so correlated by
    :math:`\sqrt{(k_t - k_m) / (k_t - k_s)}`. With independent noises the mean of a step would be right, but the spread of the
    samples too small by an error of first order; it is of second order like this. The noise to s is the step's first draw, so
    that a Brownian path given as noise is followed.

    References:
        DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models (Lu et al., 2022), Appendix A with the
        stages of Algorithm 1, https://arxiv.org/abs/2211.01095
    """

    variants = ({}, {"eta": 0.5})
    order = 1
    evaluations = 2

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

    def network_calls(self, grid: Tensor) -> int:
        """Two a step, less one if the grid ends at 0."""
        return 2 * (len(grid) - 1) - int(float(grid[-1]) == 0)

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
        here, there = float(t), float(s)
        if there == 0:
            return euler_step(denoiser, x_t, t, s, cond)
        middle, half, whole, shared = plan_of(denoiser.schedule, here, there, self.eta)
        denoised = denoiser(x_t, t, cond)
        x_middle = mix(half.on_x, x_t, half.on_denoised, denoised)
        if self.eta == 0:
            ahead = denoiser(x_middle, moment(middle), cond)
            return Stepped(mix(whole.on_x, x_t, whole.on_denoised, ahead), denoised, None)
        assert noise is not None
        path = noise(x_t, here, there)
        on_way = mix(shared, path, math.sqrt(1 - shared**2), noise(x_t, here, there, draw=1))
        ahead = denoiser(torch.add(x_middle, on_way, alpha=half.fresh * self.noise_scale), moment(middle), cond)
        x_s = torch.add(mix(whole.on_x, x_t, whole.on_denoised, ahead), path, alpha=whole.fresh * self.noise_scale)
        return Stepped(x_s, denoised, None)
