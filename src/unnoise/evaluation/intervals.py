"""Confidence intervals of means."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ShapeError

_Z = 1.959963984540054  # of a two-sided interval of 95 %
_FEW = (12.706205, 4.302653, 3.182446, 2.776445, 2.570582, 2.446912, 2.364624, 2.306004, 2.262157, 2.228139)


def student_factor(degrees: int) -> float:
    """Half the width of a 95 % interval of Student's distribution, in standard errors; infinite for no degree of freedom.

    References:
        Handbook of Mathematical Functions (Abramowitz and Stegun, 1964), Equation 26.7.5, above ten degrees: to 1e-6
    """
    if degrees <= len(_FEW):
        return _FEW[degrees - 1] if degrees > 0 else math.inf
    z = _Z
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / degrees ** (i + 1) for i, term in enumerate(terms))


@dataclass(frozen=True)
class Mean:
    """A mean with its 95 % interval.

    Args:
        value: The mean.
        half_width: Half the width of the interval; infinite for one value.
        n: How many values there are.
    """

    value: float
    half_width: float
    n: int

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return self.value - self.half_width

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self.value + self.half_width


def mean_interval(values: Tensor) -> Mean:
    """The mean of independent values with Student's 95 % interval.

    Args:
        values: Shape (n,), n at least 1.

    Raises:
        ShapeError: There are no values, or they are no row.
    """
    if values.ndim != 1 or not len(values):
        raise ShapeError(f"expected values of shape (n,) with n at least 1, got {tuple(values.shape)}")
    n = len(values)
    spread = float(values.double().std()) if n > 1 else 0.0
    half = student_factor(n - 1) * spread / math.sqrt(n) if n > 1 else math.inf
    return Mean(float(values.double().mean()), half, n)


def half_widths(values: Tensor) -> Tensor:
    """Half the width of the 95 % interval of the mean of each row of (B, n), shape (B,); infinite for n = 1."""
    n = values.shape[1]
    if n == 1:
        return torch.full((len(values),), math.inf, dtype=torch.float64)
    return student_factor(n - 1) * values.double().std(1) / math.sqrt(n)
