r"""Steps of one or several stages, each a weighted sum of x and of the estimates before it, with weights that are worked out once.

A rule on a line of `coordinates`, :math:`y_i = y_t + \sum_j w_{ij} F_j` with slopes F that are themselves weighted sums, comes
down to numbers that depend on the times alone. A step is then the network's calls and one sum before each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from ..denoisers.base import Condition, Denoiser
from ..process.base import Schedule, log_snr_at, scales, time_at
from ..process.chain import jump
from .base import mix
from .coordinates import Line, flow_line


class Stage(NamedTuple):
    """What a stage is made of, and where it stands."""

    weights: tuple[float, ...]
    """Of x_t and of each estimate so far."""
    time: Tensor
    """Shape (), float64."""


Plan = tuple[Stage, ...]
"""The stages after the first estimate; the last is the end of the step, where the network is not asked."""


@lru_cache(maxsize=65536)
def moment(t: float) -> Tensor:
    """A time as samplers hand it to a denoiser: shape (), float64; remembered, not to be changed."""
    return torch.tensor(t, dtype=torch.float64)


def blend(weights: Sequence[float], parts: Sequence[Tensor]) -> Tensor:
    """The weighted sum of x and estimates, shape of each."""
    if len(weights) == 2:
        return mix(weights[0], parts[0], weights[1], parts[1])
    total = weights[0] * parts[0]
    for i in range(1, len(weights)):
        if weights[i]:
            total.add_(parts[i], alpha=weights[i])
    return total


def follow(
    plan: Plan, denoiser: Denoiser, x_t: Tensor, t: Tensor, cond: Condition | None = None
) -> tuple[Tensor, Tensor]:
    """Walks through the stages.

    Args:
        plan: The stages.
        denoiser: Gives E[x_0 | x_t, cond]; asked once for each stage.
        x_t: Shape (B, ...).
        t: Where x_t is, shape ().
        cond: What is asked for.

    Returns:
        x at the end of the step, and the estimate at t.
    """
    parts = [x_t, denoiser(x_t, t, cond)]
    for stage in plan[:-1]:
        parts.append(denoiser(blend(stage.weights, parts), stage.time, cond))
    return blend(plan[-1].weights, parts), parts[1]


def stages(line: Line, schedule: Schedule, times: Sequence[float], weights: Sequence[Sequence[float]]) -> Plan:
    """The plan of an explicit Runge-Kutta rule on a line.

    Args:
        line: Which; finite at all times but for the slope at the last.
        schedule: Alpha and sigma.
        times: Where the step begins, where each stage stands, where it ends.
        weights: For each time but the first, what the slope at each time before adds to y; distances on the line included.
    """
    places = [line(schedule, t) for t in times]
    rows = [[1.0]]
    for place, summands in zip(places[1:], weights, strict=True):
        row = [place.scale / places[0].scale, *[0.0] * len(rows)]
        for j, weight in enumerate(summands):
            if weight:
                for i, on_part in enumerate(rows[j]):
                    row[i] += place.scale * weight * places[j].from_x * on_part
                row[j + 1] += place.scale * weight * places[j].from_denoised
        rows.append(row)
    return tuple(Stage(tuple(row), moment(t)) for row, t in zip(rows[1:], times[1:], strict=True))


@lru_cache(maxsize=65536)
def between(schedule: Schedule, t: float, s: float, share: float) -> float:
    """The time at a share of the way from t to s in log-SNR, or in sigma / (alpha + sigma) where the log-SNR has no end."""
    here, there = log_snr_at(schedule, t), log_snr_at(schedule, s)
    if math.isfinite(here) and math.isfinite(there):
        return time_at(schedule, here + share * (there - here))
    return between_in_flow(schedule, t, s, share)


def between_in_flow(schedule: Schedule, t: float, s: float, share: float) -> float:
    """The time at a share of the way from t to s in sigma / (alpha + sigma)."""
    here, there = flow_line(schedule, t).k, flow_line(schedule, s).k
    u = here + share * (there - here)
    return time_at(schedule, 2 * (math.log1p(-u) - math.log(u)))


class Rise(NamedTuple):
    """How x at a higher noise level is made: on_x x + fresh z, with standard normal z."""

    on_x: float
    fresh: float


@lru_cache(maxsize=65536)
def rise(schedule: Schedule, low: float, high: float) -> Rise:
    """The forward process from one time up to a later one."""
    at_low, at_high = scales(schedule, low), scales(schedule, high)
    return Rise(at_high[0] / at_low[0], math.sqrt(max(jump(*at_high, *at_low).beta, 0.0)))


@lru_cache(maxsize=65536)
def detour(schedule: Schedule, t: float, s: float, eta: float) -> float:
    r"""The time below s that an ancestral step goes down to before it rises to s with fresh noise.

    With k = sigma / alpha it has :math:`k^2 = k_s^2 (1 - \eta^2 (1 - k_s^2 / k_t^2))`: at eta 1 the noise that is drawn has the
    variance of x_s given x_t and x_0.

    Args:
        schedule: Alpha and sigma.
        t: Where the step begins.
        s: Where it ends, above 0.
        eta: Fresh noise in units of the standard deviation of x_s given x_t and x_0, in [0, 1].
    """
    if eta == 0:
        return s
    (alpha_t, sigma_t), (alpha_s, sigma_s) = scales(schedule, t), scales(schedule, s)
    ratio = sigma_s / alpha_s * alpha_t / sigma_t
    kept = sigma_s / alpha_s * math.sqrt(1 - eta**2 + (eta * ratio) ** 2)
    return min(time_at(schedule, -2 * math.log(kept)), s) if kept else 0.0


def then_rise(plan: Plan, on_x: float) -> Plan:
    """The plan with its end scaled, for a rise that follows."""
    return (*plan[:-1], Stage(tuple(on_x * weight for weight in plan[-1].weights), plan[-1].time))
