"""How near to the truth a sampler comes: the order of its error, and the distribution of what it draws."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor

from ...options import option_fields
from ...process.base import Schedule, scales
from ...randomness import NoiseSource
from ...samplers import grids
from ...samplers.base import Sampler, sample
from .base import NOTHING, Finding, is_adaptive, largest, normal_numbers, schedules_for
from .problems import MIXTURE, NORMAL, ExactDenoiser, NormalFlow, end_of_flow, response, start

# Order


def _even(n: int) -> Tensor:
    return torch.arange(n + 1, dtype=torch.float64) / n


def _three_to_one(n: int) -> Tensor:
    steps = torch.tensor([3.0, 1.0], dtype=torch.float64).repeat(n // 2)
    return torch.cat([torch.zeros(1, dtype=torch.float64), steps.cumsum(0) / steps.sum()])


SPACINGS = {"even": _even, "3:1": _three_to_one}
NOTHING_LEFT = 1e-11
"""An error that cannot fall much further."""
MOST_TOLERANCES = 10.0
"""The error of a run in units of the tolerance, which is of a step: the errors of some tens of them add up."""


def _slope(error: Callable[[int], float], first: int, last: int, wanted: float) -> float:
    """The order between two step counts of which the second is twice the first, from the first pair that is as good as wanted.

    Steps are made finer as long as it is not: higher orders show late.
    """
    n, coarse = first, error(first)
    while True:
        fine = error(2 * n)
        if coarse < NOTHING_LEFT or fine < NOTHING_LEFT:
            return math.inf
        found = math.log2(coarse / fine)
        if found >= wanted or 2 * n >= last:
            return found
        n, coarse = 2 * n, fine


def _off(found: Tensor, exact: Tensor) -> float:
    return float((found - exact).square().mean().sqrt())


def _worst_order(found: dict[str, float], stated: int, wanted: float) -> Finding:
    if not found:
        return NOTHING
    where, least = largest({name: -each for name, each in found.items()})
    note = f"the least is on {where}; expected at least {wanted:g}, for a stated order of {stated}"
    return Finding("exact" if least == -math.inf else f"{-least:.2f}", -least >= wanted, -least, note)


def order(sampler: Sampler, quick: bool = False) -> Finding:
    """How fast the error falls inside the interval, from t = 0.95 to 0.05: the worst of the schedules and spacings.

    Adaptive samplers are asked for their error in units of the tolerance instead.
    """
    if is_adaptive(sampler):
        return _error_in_tolerances(sampler, quick)
    if sampler.stochastic or not sampler.order:
        return NOTHING
    first, last = {1: (128, 256), 2: (128, 256), 3: (128, 1024), 4: (256, 1024)}.get(sampler.order, (32, 256))
    wanted = sampler.order - (0.25 if sampler.order < 4 else 0.3)
    found = {}
    for name, schedule in schedules_for(sampler, quick).items():
        x = start(MIXTURE, schedule, 0.95, normal_numbers(16))
        exact = end_of_flow(MIXTURE, schedule, x, 0.95, 0.05)
        denoiser = ExactDenoiser(MIXTURE, schedule)
        for spacing, row in SPACINGS.items():

            def error(n: int) -> float:
                return _off(sample(sampler, denoiser, x, 0.95 - 0.9 * row(n)), exact)  # noqa: B023

            found[f"{name}, {spacing} steps"] = _slope(error, first, last, wanted)
    return _worst_order(found, sampler.order, wanted)


def _error_in_tolerances(sampler: Sampler, quick: bool) -> Finding:
    if not {"rtol", "atol"} <= option_fields(type(sampler)).keys():
        return NOTHING
    found = {}
    for name, schedule in schedules_for(sampler, quick).items():
        x = start(MIXTURE, schedule, 1.0, normal_numbers(16))
        exact = end_of_flow(MIXTURE, schedule, x, 1.0, 0.0)
        for tolerance in (1e-3, 1e-5, 1e-7):
            asked = dataclasses.replace(sampler, rtol=tolerance, atol=tolerance)  # type: ignore[type-var]
            end = sample(asked, ExactDenoiser(MIXTURE, schedule), x, grids.uniform(3))
            found[f"{name}, tolerance {tolerance:g}"] = _off(end, exact) / tolerance
    if not found:
        return NOTHING
    where, worst = largest(found)
    note = f"the error in units of the tolerance, the largest is on {where}; expected at most {MOST_TOLERANCES:g}"
    return Finding(f"{worst:.1f} tol", worst <= MOST_TOLERANCES, worst, note)


def order_to_data(sampler: Sampler, quick: bool = False) -> Finding:
    """How fast the error falls on the whole way from noise to exactly clean data, where members may fall back to order 2."""
    if is_adaptive(sampler) or sampler.stochastic or not sampler.order:
        return NOTHING
    stated = min(sampler.order, 2)
    found = {}
    for name, schedule in schedules_for(sampler, quick).items():
        x = start(MIXTURE, schedule, 1.0, normal_numbers(16))
        exact = end_of_flow(MIXTURE, schedule, x, 1.0, 0.0)
        denoiser = ExactDenoiser(MIXTURE, schedule)

        def error(n: int) -> float:
            return _off(sample(sampler, denoiser, x, _dense_at_both_ends(schedule, n)), exact)  # noqa: B023

        found[name] = _slope(error, 64, 256, stated - 0.25)
    return _worst_order(found, stated, stated - 0.25)


def _dense_at_both_ends(schedule: Schedule, n: int) -> Tensor:
    """Cosine spacing in sigma / (alpha + sigma), in which the solution is smooth.

    With equal distances there, log-SNR, in which multistep members extrapolate, has steps of a fixed size at the ends, and the
    error a factor ln(n).
    """
    alpha, sigma = scales(schedule, 1.0)
    u = sigma / (alpha + sigma) * (1 + torch.cos(math.pi * _even(n))) / 2
    times = schedule.time_of(2 * (torch.log1p(-u) - u.log()))
    times[0], times[-1] = 1.0, 0.0
    return times


def spread(sampler: Sampler, quick: bool = False) -> Finding:
    """How far the mean and the standard deviation of normal data are missed, in the limit of many steps.

    Of runs with 100 and 200 steps, extrapolated: 2 e(200) - e(100), as most stochastic samplers have weak order 1. Exact, see
    `response`; for a sampler that is not affine, from 4,000 samples.
    """
    if not sampler.stochastic:
        return NOTHING
    found, wanted = {}, 0.015 if sampler.order else 0.04
    for name, schedule in schedules_for(sampler, quick).items():
        denoiser = (NormalFlow if sampler.wants_consistency else ExactDenoiser)(NORMAL, schedule)
        rough, fine = (response(sampler, denoiser, grids.uniform(n)) for n in (100, 200))
        if max(rough.bent, fine.bent) < 1e-9:
            found[name] = math.hypot(2 * fine.mean - rough.mean, 2 * fine.std - rough.std) / NORMAL.std[0]
        else:
            found[f"{name}, from {DRAWN:,} samples, beyond their error"] = _off_when_drawn(sampler, denoiser)
    if not found:
        return NOTHING
    where, worst = largest(found)
    note = f"how far off in units of the data's deviation, the largest is on {where}; expected at most {wanted:g}"
    return Finding(f"{100 * worst:.2f} %", worst <= wanted, worst, note)


DRAWN = 4000


def _off_when_drawn(sampler: Sampler, denoiser: ExactDenoiser) -> float:
    noise = NoiseSource(5, range(DRAWN))
    x = start(NORMAL, denoiser.schedule, 1.0, noise.start((1,), torch.float64))
    found = sample(sampler, denoiser, x, grids.uniform(200), noise=noise)
    std = NORMAL.std[0]
    off = math.hypot(float(found.mean()) - NORMAL.centre[0], float(found.std()) - std) / std
    # 4.5 standard errors, and what 200 steps may leave.
    return max(off - 4.5 / DRAWN**0.5 - 0.04, 0.0)
