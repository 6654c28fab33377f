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
    """The jackknife over n samples: of the number without each of them, shape (n,)."""
    n = len(values)
    return Variance((n - 1) ** 2 / n * float(values.var()) if n > 1 else math.inf, n - 1)


def of_leaving_groups_out(values: Tensor) -> Variance:
    """The jackknife over G equal groups: of the number without each of them, shape (G,)."""
    return of_leaving_one_out(values)


def half_width(parts: Sequence[Variance]) -> float:
    """Half of a 95 % interval around a number whose variance is the sum of independent parts.

    References:
        An Approximate Distribution of Estimates of Variance Components (Satterthwaite, 1946), Equation 17,
        https://doi.org/10.2307/3002019
    """
    total = sum(part.value for part in parts)
    if total == 0 or not math.isfinite(total):
        return total
    uncertain = sum(part.value**2 / part.degrees for part in parts)
    degrees = total**2 / uncertain if uncertain > 0 else math.inf
    factor = _Z if degrees > 1e4 else student_factor(max(1, int(degrees)))
    return factor * math.sqrt(total)


def around_share(share: float, trials: int, parts: Sequence[Variance]) -> tuple[float, float]:
    """Wilson's interval of a share, for as many trials as would leave the variance that was found.

    It stays within [0, 1] and has a width at both ends. It never takes more trials than there were.
    """
    spread, half = share * (1 - share), half_width(parts)
    if not math.isfinite(half):
        return 0.0, 1.0
    worth = min(float(trials), spread * (_Z / half) ** 2) if spread > 0 and half > 0 else float(trials)
    z2 = _Z**2 / worth
    middle = (share + z2 / 2) / (1 + z2)
    width = math.sqrt(spread * z2 + z2**2 / 4) / (1 + z2)
    return (0.0 if share == 0 else max(0.0, middle - width)), (1.0 if share == 1 else min(1.0, middle + width))
