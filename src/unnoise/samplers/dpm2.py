"""DPM2: the slope in the middle of the step, in the logarithm of sigma / alpha, stands for the whole step."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ..denoisers.base import Condition, Denoiser
from ..options import option
from ..process.base import Schedule
from ..randomness import Noise
from .base import Sampler, Stepped, samplers
from .euler import euler_step
from .heun import LineName, chosen_line
from .stages import Plan, between, detour, follow, rise, stages, then_rise


@lru_cache(maxsize=65536)
def midpoint_plan(schedule: Schedule, t: float, s: float, name: LineName) -> Plan:
    """The two stages of a step from t to s."""
    line = chosen_line(schedule, t, name)
    middle = between(schedule, t, s, 0.5)
    here, there, end = (line(schedule, time).k for time in (t, middle, s))
    return stages(line, schedule, (t, middle, s), [(there - here,), (0.0, end - here)])


@lru_cache(maxsize=65536)
def ancestral_plan(schedule: Schedule, t: float, s: float, eta: float, name: LineName) -> tuple[Plan, float]:
    """The stages of a step to below s, scaled for the rise to s, and how much noise is drawn for it."""
    down = detour(schedule, t, s, eta)
    on_x, fresh = rise(schedule, down, s)
    return then_rise(midpoint_plan(schedule, t, down, name), on_x), fresh


@samplers.register("dpm2")
@dataclass(frozen=True)
class DPM2Sampler(Sampler):
    """The midpoint rule, as DPM-Solver-2 and k-diffusion have it: second order, two network calls a step.

    A step that ends at clean data needs one.

    On the noise line this is DPM-Solver-2. As with Heun's rule that line is taken by itself only on variance-exploding
    schedules; k-diffusion takes it on all. With eta above 0 the step goes down to a lower noise level and fresh noise leads
    up again, as in k-diffusion's ancestral form.

    References:
        DPM-Solver: A Fast ODE Solver for Diffusion Probabilistic Model Sampling in Around 10 Steps (Lu et al., 2022),
        Algorithm 1, https://arxiv.org/abs/2206.00927
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), Appendix D.2, for the middle
        of a step, https://arxiv.org/abs/2206.00364
    """

    variants = ({}, {"eta": 0.6}, {"eta": 1.0}, {"line": "noise"})
    order = 2
    evaluations = 2

    eta: float = option(
        0.0, help="how much noise is drawn afresh: 0 none, 1 as much as the posterior has", low=0.0, high=1.0
    )
    line: LineName = option(
        "auto", help="where the slope is followed: noise in sigma / alpha, flow in sigma / (alpha + sigma)"
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
        plan, fresh = ancestral_plan(denoiser.schedule, here, there, self.eta, self.line)
        x_s, denoised = follow(plan, denoiser, x_t, t, cond)
        if self.eta:
            assert noise is not None
            x_s = torch.add(x_s, noise(x_t, here, there), alpha=fresh)
        return Stepped(x_s, denoised, None)
