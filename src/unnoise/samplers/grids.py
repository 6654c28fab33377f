"""Grids: the falling times of a run, n + 1 for n steps, float64; the first is where it starts and the last exactly 0.

A grid is a function of the number of steps and the schedule. Times are real numbers, never rounded to a table, except where
a grid is discrete by definition.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import BadOption, UnknownName
from ..process.base import Schedule, log_snr_at, scales
from .base import check_grid

FAINTEST = -12.0  # log-SNR; below it one part in 400 of what is seen is signal


def _check(n: int, start: float = 1.0) -> None:
    if n < 1:
        raise BadOption(f"steps: must be at least 1, got {n}")
    if not 0 < start <= 1:
        raise BadOption(f"start: must be above 0 and at most 1, got {start}")


def uniform(n: int, start: float = 1.0) -> Tensor:
    """Times at equal distances.

    Args:
        n: Steps, at least 1.
        start: The first time, in (0, 1].

    Raises:
        BadOption: n is below 1, or start out of range.
    """
    _check(n, start)
    return torch.arange(n, -1, -1, dtype=torch.float64) / n * start


def discrete(n: int, num_steps: int, spacing: Literal["trailing", "leading", "linspace"] = "trailing") -> Tensor:
    """The times of n of the levels of a discrete chain, then clean data.

    Args:
        n: Steps, from 1 to num_steps.
        num_steps: Levels of the chain.
        spacing: "trailing" counts from the last level down, "leading" from the first level up (it starts below the last
            level, as DDIM's paper does), "linspace" takes both ends.

    Raises:
        BadOption: n is out of range, or the spacing is unknown.

    References:
        Common Diffusion Noise Schedules and Sample Steps are Flawed (Lin et al., 2024), Table 2, https://arxiv.org/abs/2305.08891
    """
    _check(n)
    if n > num_steps:
        raise BadOption(f"steps: a chain of {num_steps} levels has at most {num_steps} steps, got {n}")
    if spacing == "trailing":
        counts = [round(num_steps * (n - i) / n) for i in range(n)]
    elif spacing == "leading":
        counts = [(num_steps // n) * (n - 1 - i) + 1 for i in range(n)]
    elif spacing == "linspace":
        counts = [round(num_steps - (num_steps - 1) * i / max(n - 1, 1)) for i in range(n)]
    else:
        raise UnknownName("spacing", spacing, ["trailing", "leading", "linspace"])
    return torch.tensor([*counts, 0], dtype=torch.float64) / num_steps


def _between(n: int, schedule: Schedule, start: float, along: Callable[[float, float, Tensor], Tensor]) -> Tensor:
    """n times from `start` to the schedule's t_min along a curve of the log-SNR, then 0.

    Where the signal fades the log-SNR runs far down, or to infinity; the curve then begins at FAINTEST.
    """
    _check(n, start)
    if n == 1:
        return torch.tensor([start, 0.0], dtype=torch.float64)
    low = min(schedule.t_min, start / 2)
    end = log_snr_at(schedule, low)
    fades = scales(schedule, 1.0)[0] < 1
    first = max(log_snr_at(schedule, start), FAINTEST) if fades else log_snr_at(schedule, start)
    times = schedule.time_of(along(first, end, torch.linspace(0, 1, n, dtype=torch.float64)))
    times[0] = start
    return torch.cat([times, torch.zeros(1, dtype=torch.float64)])


def log_snr(n: int, schedule: Schedule, start: float = 1.0) -> Tensor:
    """Equal distances in log-SNR from `start` to the schedule's t_min, then clean data.

    Args:
        n: Steps, at least 1.
        schedule: Whose log-SNR.
        start: The first time, in (0, 1].

    Raises:
        BadOption: n is below 1, or start out of range.
    """
    return _between(n, schedule, start, lambda first, end, share: first + (end - first) * share)


def karras(n: int, schedule: Schedule, rho: float = 7.0, start: float = 1.0) -> Tensor:
    """Equal distances in (sigma / alpha)^(1 / rho) from `start` to the schedule's t_min, then clean data.

    Args:
        n: Steps, at least 1.
        schedule: Whose sigma / alpha.
        rho: How much of the steps stand at low noise.
        start: The first time, in (0, 1].

    Raises:
        BadOption: n is below 1, or start out of range.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), Equation 5,
        https://arxiv.org/abs/2206.00364
    """
    if not rho >= 1:
        raise BadOption(f"rho: must be at least 1, got {rho}")

    def along(first: float, end: float, share: Tensor) -> Tensor:
        high, low = math.exp(-first / (2 * rho)), math.exp(-end / (2 * rho))
        return -2 * rho * (high + (low - high) * share).log()

    return _between(n, schedule, start, along)


def angle(n: int, schedule: Schedule, start: float = 1.0, log_share: float = 0.3, sigma_data: float = 0.5) -> Tensor:
    """Equal distances in a mix of the angle atan(sigma / (alpha sigma_data)) and the log-SNR, then clean data.

    The angle spends the steps where the estimate turns from the mean of the data to one sample; the share of log-SNR keeps
    enough of them at low noise.

    Args:
        n: Steps, at least 1.
        schedule: Whose sigma / alpha.
        start: The first time, in (0, 1].
        log_share: The part of the log-SNR in the mix, in [0, 1].
        sigma_data: The standard deviation of the data.

    Raises:
        BadOption: n is below 1, or start out of range.
    """

    def along(first: float, end: float, share: Tensor) -> Tensor:
        fine = torch.linspace(first, end, 4001, dtype=torch.float64)
        place = log_share * fine / 16 - (1 - log_share) * torch.atan(torch.exp(-fine / 2) / sigma_data)
        wanted = place[0] + (place[-1] - place[0]) * share
        right = torch.searchsorted(place, wanted).clamp(1, len(place) - 1)
        part = (wanted - place[right - 1]) / (place[right] - place[right - 1])
        return torch.lerp(fine[right - 1], fine[right], part)

    return _between(n, schedule, start, along)


def explicit(times: Sequence[float]) -> Tensor:
    """Given times, falling strictly from at most 1; 0 is added where it is missing.

    Raises:
        ShapeError: There are no times.
        BadOption: They do not fall, or leave [0, 1].
    """
    values = [float(t) for t in times]
    grid = torch.tensor(values if values and values[-1] == 0 else [*values, 0.0], dtype=torch.float64)
    check_grid(grid)
    return grid


def _levels(schedule: Schedule) -> int:
    if not schedule.num_steps:
        raise BadOption(f"{type(schedule).__name__} has no levels: use a grid such as uniform, log_snr or karras")
    return schedule.num_steps


GRIDS: dict[str, Callable[..., Tensor]] = {
    "uniform": lambda n, schedule, start=1.0: uniform(n, start),
    "trailing": lambda n, schedule: discrete(n, _levels(schedule), "trailing"),
    "leading": lambda n, schedule: discrete(n, _levels(schedule), "leading"),
    "linspace": lambda n, schedule: discrete(n, _levels(schedule), "linspace"),
    "log_snr": log_snr,
    "karras": karras,
    "angle": angle,
}

SUMMARIES = {
    "uniform": "equal distances in time",
    "trailing": "levels of a discrete chain, counted from the last one down",
    "leading": "levels of a discrete chain, counted from the first one up",
    "linspace": "levels of a discrete chain, both ends taken",
    "log_snr": "equal distances in log-SNR",
    "karras": "equal distances in the seventh root of sigma / alpha",
    "angle": "a mix of the angle of signal and noise and of log-SNR",
}


def make_grid(name: str, n: int, schedule: Schedule, **options: Any) -> Tensor:
    """The grid that a person asked for by name.

    Args:
        name: One of GRIDS.
        n: Steps, at least 1.
        schedule: Of the model.
        options: Of that grid.

    Returns:
        Shape (n + 1,), float64.

    Raises:
        UnknownName: There is no such grid.
        BadOption: n is out of range, or the grid cannot be made for this schedule.
    """
    if name not in GRIDS:
        raise UnknownName("grid", name, GRIDS)
    try:
        return GRIDS[name](n, schedule, **options)
    except TypeError:
        raise BadOption(f"the grid {name} has no option {', '.join(options)}") from None
