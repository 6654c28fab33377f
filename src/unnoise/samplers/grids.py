"""Grids: the falling times of a run, n + 1 for n steps, float64; the first is where it starts and the last exactly 0.

A grid is a function of the number of steps and the schedule. Times are real numbers, never rounded to a table, except where
a grid is discrete by definition.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..errors import BadOption, UnknownName
from ..process.base import Schedule, log_snr_at, scales, time_at
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
        spacing: "trailing" counts from the last level down; "leading" from the first level up, floor(T i / n), so that it
            starts below the last level; "linspace" takes both ends.

    Raises:
        BadOption: n is out of range, or the spacing is unknown.

    References:
        Common Diffusion Noise Schedules and Sample Steps are Flawed (Lin et al., 2024), Table 2, https://arxiv.org/abs/2305.08891
        leading: Denoising Diffusion Implicit Models (Song et al., 2021), Appendix D.2, https://arxiv.org/abs/2010.02502. Its c
        is a real number; with floor(T / n) for it, 501 of 1,000 levels would be the lower half of them.
    """
    _check(n)
    if n > num_steps:
        raise BadOption(f"steps: a chain of {num_steps} levels has at most {num_steps} steps, got {n}")
    if spacing == "trailing":
        counts = [round(num_steps * (n - i) / n) for i in range(n)]
    elif spacing == "leading":
        counts = [num_steps * (n - 1 - i) // n + 1 for i in range(n)]
    elif spacing == "linspace":
        counts = [round(num_steps - (num_steps - 1) * i / max(n - 1, 1)) for i in range(n)]
    else:
        raise UnknownName("spacing", spacing, ["trailing", "leading", "linspace"])
    return torch.tensor([*counts, 0], dtype=torch.float64) / num_steps


def _between(
    n: int,
    schedule: Schedule,
    start: float,
    along: Callable[[float, float, Tensor], Tensor],
    end: float = math.inf,
) -> Tensor:
    """n times from `start` along a curve of the log-SNR to the schedule's t_min, or to a log-SNR before it, then 0.

    Where the signal fades the log-SNR runs far down, or to infinity; the curve then begins at FAINTEST.
    """
    _check(n, start)
    if n == 1:
        return torch.tensor([start, 0.0], dtype=torch.float64)
    end = min(end, log_snr_at(schedule, schedule.t_min))
    if not time_at(schedule, end) < start:
        end = log_snr_at(schedule, start / 2)
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


def exponential(n: int, schedule: Schedule, rho: float = 1.0, start: float = 1.0) -> Tensor:
    """From `start` to the schedule's t_min along a power of the way in log-SNR, then clean data.

    Args:
        n: Steps, at least 1.
        schedule: Whose log-SNR.
        rho: 1 is equal distances, as `log_snr`; above 1 more steps stand at low noise.
        start: The first time, in (0, 1].

    Raises:
        BadOption: n is below 1, or rho or start out of range.
    """
    if not rho > 0:
        raise BadOption(f"rho: must be above 0, got {rho}")
    return _between(n, schedule, start, lambda first, end, share: end + (first - end) * (1 - share) ** rho)


def kl_optimal(n: int, schedule: Schedule, sigma_data: float = 1.0, start: float = 1.0) -> Tensor:
    """Equal distances in the angle atan(sigma / (alpha sigma_data)) from `start` to the schedule's t_min, then clean data.

    For round normal data these are the steps that lose least, in the bound of the KL divergence to the data.

    Args:
        n: Steps, at least 1.
        schedule: Whose sigma / alpha.
        sigma_data: The standard deviation of the encoded data.
        start: The first time, in (0, 1].

    Raises:
        BadOption: n is below 1, or start out of range.

    References:
        Align Your Steps (Sabour et al., 2024), Theorem 3.1, https://arxiv.org/abs/2404.14507
    """
    return _between(n, schedule, start, _mixed(sigma_data, 0.0))


def angle(
    n: int,
    schedule: Schedule,
    sigma_data: float = 1.0,
    start: float = 1.0,
    log_share: float = 0.1,
    last: float | None = None,
    pivot: float = 1.0,
) -> Tensor:
    """Equal distances in a mix of the angle atan(sigma / (alpha sigma_data pivot)) and of log(sigma / alpha), then clean data.

    The angle spends the steps where the estimate turns from the mean of the data to one sample; the logarithm keeps some of
    them at high noise, where data of many dimensions makes up its mind, and at low noise. Made for the sampler arc: the last
    step, which extrapolates to clean data, may be long, and gets shorter with the square of the number of steps.

    Args:
        n: Steps, at least 1.
        schedule: Whose sigma / alpha.
        sigma_data: The standard deviation of the encoded data.
        start: The first time, in (0, 1].
        log_share: The share of the logarithm, in [0, 1).
        last: Where the last step begins, as sigma / (alpha sigma_data); min(1, 5 / n^2) by default, not below t_min.
        pivot: The noise, sigma / (alpha sigma_data), at which the angle is 45 degrees.

    Raises:
        BadOption: n is below 1, or an option out of range.
    """
    _check(n, start)
    if not 0 <= log_share < 1:
        raise BadOption(f"log_share: must be at least 0 and below 1, got {log_share}")
    if last is not None and not last > 0:
        raise BadOption(f"last: must be above 0, got {last}")
    ratio = min(1.0, 5 / n**2) if last is None else last
    end = -2 * math.log(ratio * sigma_data)
    return _between(n, schedule, start, _mixed(sigma_data * pivot, log_share), end)


def _mixed(sigma_data: float, log_share: float) -> Callable[[float, float, Tensor], Tensor]:
    if not sigma_data > 0:
        raise BadOption(f"sigma_data: must be above 0, got {sigma_data}")

    def along(first: float, end: float, share: Tensor) -> Tensor:
        fine = torch.linspace(first, end, 4001, dtype=torch.float64)
        place = log_share * fine / 2 - (1 - log_share) * torch.atan(torch.exp(-fine / 2) / sigma_data)
        wanted = place[0] + (place[-1] - place[0]) * share
        right = torch.searchsorted(place, wanted).clamp(1, len(place) - 1)
        part = (wanted - place[right - 1]) / (place[right] - place[right - 1])
        return torch.lerp(fine[right - 1], fine[right], part)

    return along


def beta(n: int, a: float = 0.6, b: float = 0.6, start: float = 1.0) -> Tensor:
    """Times at equal shares of a beta distribution: below 1, a and b put more of them at both ends.

    Args:
        n: Steps, at least 1.
        a: Of the density t^(a - 1) (1 - t)^(b - 1), above 0: its share near data.
        b: Its share near noise.
        start: The first time, in (0, 1].

    Raises:
        BadOption: n is below 1, or an option out of range.

    References:
        Beta Sampling is All You Need (Lee et al., 2024), https://arxiv.org/abs/2407.12173
    """
    _check(n, start)
    if not (a > 0 and b > 0):
        raise BadOption(f"a and b: must be above 0, got {a} and {b}")
    low, high = torch.zeros(n + 1, dtype=torch.float64), torch.ones(n + 1, dtype=torch.float64)
    wanted = torch.linspace(1, 0, n + 1, dtype=torch.float64)
    for _ in range(80):
        middle = (low + high) / 2
        above = _beta_share(middle, a, b) > wanted
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    times = (low + high) / 2
    times[0], times[-1] = 1.0, 0.0
    return times * start


def _beta_share(t: Tensor, a: float, b: float) -> Tensor:
    """The share of a beta distribution below t, elementwise."""

    def lower(t: Tensor, a: float, b: float) -> Tensor:
        # In w = t^a the integrand has no pole at 0; 64 points of Gauss and Legendre.
        top = t**a
        w = top[:, None] / 2 * (1 + torch.from_numpy(_NODES))
        return (top / 2) * ((1 - w ** (1 / a)) ** (b - 1) @ torch.from_numpy(_WEIGHTS)) / a

    half = torch.full((1,), 0.5, dtype=torch.float64)
    left, right = lower(half, a, b), lower(half, b, a)
    below, above = lower(t.clamp(max=0.5), a, b), left + right - lower((1 - t).clamp(max=0.5), b, a)
    return torch.where(t < 0.5, below, above) / (left + right)


_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)


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
    "exponential": exponential,
    "beta": lambda n, schedule, **options: beta(n, **options),
    "kl_optimal": kl_optimal,
    "angle": angle,
}

KNOW_THE_DATA = ("kl_optimal", "angle")
"""The grids that take the standard deviation of the encoded data, as the option sigma_data."""

SUMMARIES = {
    "uniform": "equal distances in time",
    "trailing": "levels of a discrete chain, counted from the last one down",
    "leading": "levels of a discrete chain, counted from the first one up",
    "linspace": "levels of a discrete chain, both ends taken",
    "log_snr": "equal distances in log-SNR",
    "karras": "equal distances in the seventh root of sigma / alpha",
    "exponential": "a power of the way in log-SNR",
    "beta": "equal shares of a beta distribution of time, more steps at both ends",
    "kl_optimal": "equal distances in the angle of signal and noise, optimal for round normal data",
    "angle": "a mix of the angle of signal and noise and of log-SNR, made for the sampler arc",
}


GridSpec = str | Mapping[str, Any] | Sequence[float]
"""A grid as a person gives it: its name, {name: ..., option: value}, or the times themselves."""


def make_grid(spec: GridSpec, n: int, schedule: Schedule, *, sigma_data: float | None = None, **options: Any) -> Tensor:
    """The grid that a person asked for.

    Args:
        spec: One of GRIDS by name, {name: ..., option: value}, or the times, where 0 may be left out.
        n: Steps, at least 1.
        schedule: Of the model.
        sigma_data: The standard deviation of the encoded data, for the grids that want it.
        options: Of that grid.

    Returns:
        Shape (n + 1,), float64.

    Raises:
        UnknownName: There is no such grid.
        BadOption: n is out of range, or the grid cannot be made for this schedule.
        ShapeError: There are no times.
    """
    if isinstance(spec, Mapping):
        options = {**{key: value for key, value in spec.items() if key != "name"}, **options}
        spec = str(spec.get("name", ""))
    elif not isinstance(spec, str):
        grid = explicit(spec)
        if len(grid) != n + 1:
            raise BadOption(f"steps: the times given make {len(grid) - 1} steps, and {n} were asked for")
        return grid
    if spec not in GRIDS:
        raise UnknownName("grid", spec, GRIDS)
    if sigma_data is not None and spec in KNOW_THE_DATA:
        options = {"sigma_data": sigma_data, **options}
    try:
        return GRIDS[spec](n, schedule, **options)
    except TypeError:
        raise BadOption(f"the grid {spec} has no option {', '.join(options)}, or not with such a value") from None
