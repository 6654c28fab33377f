"""DPM-Solver, single-step: the predicted noise is expanded in the log-SNR and integrated exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from torch import Tensor

from ..denoisers.base import Condition, Denoiser
from ..options import option
from ..process.base import Schedule, log_snr_at
from ..randomness import Noise
from .base import Sampler, Stepped, samplers
from .coordinates import flow_line, noise_line
from .grids import FAINTEST
from .stages import Plan, between, between_in_flow, follow, stages


@lru_cache(maxsize=65536)
def plan_of(schedule: Schedule, t: float, s: float, order: int) -> Plan:
    """The stages of a step from t to s: as many as the order says, and one if the step ends at clean data."""
    if order == 1 or s == 0:
        return stages(flow_line, schedule, (t, s), [(flow_line(schedule, s).k - flow_line(schedule, t).k,)])
    if log_snr_at(schedule, t) < FAINTEST:
        return flow_plan(schedule, t, s, order)
    k_t, k_s = noise_line(schedule, t).k, noise_line(schedule, s).k
    if order == 2:
        middle = between(schedule, t, s, 1 / 2)
        weights = [(noise_line(schedule, middle).k - k_t,), (0.0, k_s - k_t)]
        return stages(noise_line, schedule, (t, middle, s), weights)
    first, second = between(schedule, t, s, 1 / 3), between(schedule, t, s, 2 / 3)
    k_1, k_2 = noise_line(schedule, first).k, noise_line(schedule, second).k
    # What the difference of the slopes adds: its integral in lambda, where it is taken to grow in proportion.
    h = math.log(k_t / k_s)
    h_2 = math.log(k_t / k_2)
    bend = -2 * k_2 * (math.expm1(h_2) / h_2 - 1)
    last = -1.5 * k_s * (math.expm1(h) / h - 1)
    weights = [(k_1 - k_t,), (k_2 - k_t - bend, bend), (k_s - k_t - last, 0.0, last)]
    return stages(noise_line, schedule, (t, first, second, s), weights)


def flow_plan(schedule: Schedule, t: float, s: float, order: int) -> Plan:
    """The stages of a step from nearly nothing but noise: the midpoint rule, or Heun's of third order, on the flow line."""
    h = flow_line(schedule, s).k - flow_line(schedule, t).k
    if order == 2:
        times = t, between_in_flow(schedule, t, s, 1 / 2), s
        return stages(flow_line, schedule, times, [(h / 2,), (0.0, h)])
    thirds = t, between_in_flow(schedule, t, s, 1 / 3), between_in_flow(schedule, t, s, 2 / 3), s
    return stages(flow_line, schedule, thirds, [(h / 3,), (0.0, 2 * h / 3), (h / 4, 0.0, 3 * h / 4)])


@samplers.register("dpm_solver")
@dataclass(frozen=True)
class DPMSolverSampler(Sampler):
    r"""Single steps in log-SNR on the noise (DPM-Solver): order 1 to 3, as many network calls a step as its order.

    A step that ends at clean data needs one.

    With :math:`\lambda = \ln(\alpha / \sigma)` the stages of order 2 stand at a half, those of order 3 at one and two thirds
    of the step in lambda. The expansion is in units of sigma / alpha, which hardly any signal makes huge: a step that begins
    below a log-SNR of -12, or where it is infinite, is made in sigma / (alpha + sigma) instead, by rules of the same order.

    References:
        DPM-Solver: A Fast ODE Solver for Diffusion Probabilistic Model Sampling in Around 10 Steps (Lu et al., 2022),
        Algorithms 1 and 2, https://arxiv.org/abs/2206.00927
    """

    variants = ({}, {"order": 1}, {"order": 3})

    order: int = option(2, help="stages a step, each one network call", low=1, high=3)

    @property
    def evaluations(self) -> int:  # type: ignore[override]
        """The order."""
        return self.order

    def network_calls(self, grid: Tensor) -> int:
        """The order for each step, but one for a step to 0."""
        return self.order * (len(grid) - 1) - (self.order - 1) * int(float(grid[-1]) == 0)

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
        plan = plan_of(denoiser.schedule, float(t), float(s), self.order)
        x_s, denoised = follow(plan, denoiser, x_t, t, cond)
        return Stepped(x_s, denoised, None)
