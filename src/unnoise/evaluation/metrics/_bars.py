"""From variances to intervals: how sure a number is when both sides of it are samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from ..intervals import student_factor

_Z = 1.959963984540054  # of a two-sided interval of 95 %


class Variance(NamedTuple):
    """The variance that one side's chance leaves, and the degrees of freedom that it is known with."""

    value: float
    degrees: float = math.inf


def of_influences(influences: Tensor) -> Variance:
    """Of a number that each of n samples moves by its influence over n, shape (n,)."""
    n = len(influences)
    return Variance(float(influences.var()) / n if n > 1 else math.inf, n - 1)


def of_leaving_one_out(values: Tensor) -> Variance:
    """The jackknife over n samples, by the number without each of them, shape (n,)."""
    n = len(values)
    return Variance((n - 1) ** 2 / n * float(values.var()) if n > 1 else math.inf, n - 1)


def of_groups(values: Tensor) -> Variance:
    """Of a number from all samples, by what it is for each of G groups alone, shape (G,)."""
    return Variance(float(values.var()) / len(values), len(values) - 1)


def total(parts: Sequence[Variance]) -> Variance:
    """The variance of a sum of independent parts.

    References:
        An Approximate Distribution of Estimates of Variance Components (Satterthwaite, 1946),
        https://doi.org/10.2307/3002019
    """
    value = sum(part.value for part in parts)
    uncertain = sum(part.value**2 / part.degrees for part in parts)
    return Variance(value, value**2 / uncertain if uncertain > 0 else math.inf)


def half_width(parts: Sequence[Variance]) -> float:
    """Half of a 95 % interval around a number whose variance is the sum of independent parts."""
    value, degrees = total(parts)
    if value == 0 or not math.isfinite(value):
        return value
    factor = student_factor(max(1, int(degrees))) if degrees < 1e4 else _Z
    return factor * math.sqrt(value)


def until_another(chance: Variance) -> float:
    """Half of the interval that the number of other samples, as many, falls into 95 times in 100.

    Two numbers differ by the root of 2 more than one differs from its mean. Metrics whose variance is already counted
    double for equal distributions, as a jackknife does, have no need of it.
    """
    return half_width([chance]) * math.sqrt(2)


def lean(half: float, biased: float) -> float:
    """How much further the interval of a squared distance reaches up than down.

    The distance has about the same error wherever it lies, and :math:`(d + e)^2` lies :math:`e^2` further up than half of the
    interval, :math:`2 d e`, does. Near 0 it is not more than that half.

    Args:
        half: Half of the interval.
        biased: The squared distance of the samples as they are, at least 0.
    """
    return min(half, half**2 / (4 * biased)) if biased > 0 else 0.0


def both_sides(made: float, real: float) -> float:
    """How many trials leave as much chance as so many made and so many real samples together."""
    return 1 / (1 / made + 1 / real)


def around_share(share: float, trials: float, chance: Variance) -> tuple[float, float]:
    r"""The interval that the share among other samples, as many, falls into 95 times in 100.

    It is symmetric in :math:`\arcsin \sqrt{(w p + 3/8) / (w + 3/4)}`, whose variance is :math:`1 / 4w` at every share, so
    that it stays within [0, 1] and has a width at both ends. w is the number of trials that would leave the variance that was
    found, and at most `trials`, because shares near an end show too little of it.

    References:
        The Transformation of Poisson, Binomial and Negative-Binomial Data (Anscombe, 1948),
        https://doi.org/10.1093/biomet/35.3-4.246
    """
    spread, half = share * (1 - share), until_another(chance)
    if not math.isfinite(half):
        return 0.0, 1.0
    worth = trials
    if spread > 0 and half > 0:
        worth = max(1.0, min(worth, 2 * spread * (_Z / half) ** 2))
    middle, reach = math.asin(math.sqrt((worth * share + 0.375) / (worth + 0.75))), _Z / math.sqrt(2 * worth)
    ends = (max(0.0, middle - reach), min(math.pi / 2, middle + reach))
    low, high = ((math.sin(end) ** 2 * (worth + 0.75) - 0.375) / worth for end in ends)
    return max(0.0, low), min(1.0, high)
