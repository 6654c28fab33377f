"""DPM-Solver++(2S): the estimate in the middle of the step, in log-SNR, stands for the whole step."""

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
from .coordinates import data_line
from .euler import euler_step
from .stages import Plan, Stage, between, detour, follow, moment, rise, stages, then_rise


@lru_cache(maxsize=65536)
def midpoint_plan(schedule: Schedule, t: float, s: float) -> Plan:
    """The two stages of a step from t to s."""
    middle = between(schedule, t, s, 0.5)
    if s == 0:
        # An ancestral step from pure noise goes down to clean data, where x / sigma has no value and the estimate is the end.
        return *_euler(schedule, t, middle), Stage((0.0, 0.0, 1.0), moment(s))
    here, there, end = (data_line(schedule, time).k for time in (t, middle, s))
    return stages(data_line, schedule, (t, middle, s), [(there - here,), (0.0, end - here)])


def _euler(schedule: Schedule, t: float, s: float) -> Plan:
    return stages(data_line, schedule, (t, s), [(data_line(schedule, s).k - data_line(schedule, t).k,)])


@lru_cache(maxsize=65536)
def ancestral_plan(schedule: Schedule, t: float, s: float, eta: float) -> tuple[Plan, float]:
    """The stages of a step to below s, scaled for the rise to s, and how much noise is drawn for it."""
    down = detour(schedule, t, s, eta)
    on_x, fresh = rise(schedule, down, s)
    return then_rise(midpoint_plan(schedule, t, down), on_x), fresh


@samplers.register("dpmpp_2s")
@dataclass(frozen=True)
class DPMSolverPP2SSampler(Sampler):
    """DPM-Solver++ by a stage in the middle of each step (2S): second order, two network calls a step.

    A step that ends at clean data needs one.

    With eta above 0 the step goes down to a lower noise level and fresh noise leads up again, as in k-diffusion's ancestral
    form. The solver of the reverse SDE is `DPMSolverPPSDESampler`.

    References:
        DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models (Lu et al., 2022), Algorithm 1 with
        its middle at a half, https://arxiv.org/abs/2211.01095
    """

    variants = ({}, {"eta": 0.6}, {"eta": 1.0})
    order = 2
    evaluations = 2

    eta: float = option(
        0.0, help="how much noise is drawn afresh: 0 none, 1 as much as the posterior has", low=0.0, high=1.0
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
        plan, fresh = ancestral_plan(denoiser.schedule, here, there, self.eta)
        x_s, denoised = follow(plan, denoiser, x_t, t, cond)
        if self.eta:
            assert noise is not None
            x_s = torch.add(x_s, noise(x_t, here, there), alpha=fresh)
        return Stepped(x_s, denoised, None)
