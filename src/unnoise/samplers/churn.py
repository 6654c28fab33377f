"""Churn: before each step fresh noise is added, up to a higher noise level, and Heun's rule steps down from there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ..denoisers.base import Condition, Denoiser
from ..options import option
from ..process.base import Schedule, log_snr_at, time_at
from ..randomness import Noise
from .base import Sampler, Stepped, samplers
from .heun import LineName, heun_plan
from .stages import follow, moment, rise

MOST = math.sqrt(2) - 1


@lru_cache(maxsize=65536)
def raised(schedule: Schedule, t: float, churn: float, low: float, high: float) -> float:
    """The time at which sigma / alpha is the factor 1 + churn above that of t, at most 1; t itself outside low ... high."""
    log_snr = log_snr_at(schedule, t)
    if churn == 0 or math.isinf(log_snr) or not low <= math.exp(-log_snr / 2) <= high:
        return t
    return min(max(time_at(schedule, log_snr - 2 * math.log1p(churn)), t), 1.0)


@samplers.register("churn")
@dataclass(frozen=True)
class ChurnSampler(Sampler):
    r"""Heun's rule with churn: noise is added before each step and taken away with it. Two network calls a step.

    A step that ends at clean data needs one.

    From :math:`\sigma / \alpha` the noise level rises to :math:`(1 + \gamma) \sigma / \alpha`, but never beyond the schedule's
    end. The paper's :math:`\gamma` is :math:`\min(S_{churn} / N, \sqrt 2 - 1)` for N steps; here it is given as it is. No noise
    is added before the step to clean data.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), Algorithm 2,
        https://arxiv.org/abs/2206.00364
    """

    variants = ({}, {"churn": 0.0}, {"churn": 0.4, "low": 0.05, "high": 50.0})
    order = 2
    evaluations = 2

    churn: float = option(
        0.1,
        help="share by which sigma / alpha rises before a step; S_churn over the number of steps",
        low=0.0,
        high=MOST,
    )
    low: float = option(0.0, help="smallest sigma / alpha that is raised, S_min", low=0.0)
    high: float = option(math.inf, help="largest sigma / alpha that is raised, S_max", low=0.0)
    noise_scale: float = option(
        1.0, help="factor on the fresh noise, S_noise; a little above 1 brings back lost detail", low=0.0, high=2.0
    )
    line: LineName = option(
        "auto", help="where slopes are averaged: noise in sigma / alpha, flow in sigma / (alpha + sigma)"
    )

    @property
    def stochastic(self) -> bool:  # type: ignore[override]
        """Whether churn is above 0."""
        return self.churn > 0

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
        schedule, here, there = denoiser.schedule, float(t), float(s)
        start = raised(schedule, here, self.churn, self.low, self.high) if there else here
        if start > here:
            assert noise is not None
            on_x, fresh = rise(schedule, here, start)
            x_t = torch.add(on_x * x_t, noise(x_t, here, there), alpha=fresh * self.noise_scale)
            t = moment(start)
        x_s, denoised = follow(heun_plan(schedule, start, there, self.line), denoiser, x_t, t, cond)
        return Stepped(x_s, denoised, None)
