"""Distances made of means over pairs, the shared part of kid, cmmd, mmd and energy: U-statistics and their jackknife."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from . import _bars
from .base import Estimate

Kernel = Callable[[Tensor, Tensor], Tensor]
"""Of rows (n, D) and rows (m, D), the similarity of every pair, shape (n, m), float64."""

_AT_ONCE = 2**21  # pairs of one block: 16 MB


class Discrepancy(NamedTuple):
    """A squared distance of two distributions, from samples of both.

    Args:
        value: Unbiased: pairs of a sample with itself do not count. Below 0 about half of the time for equal distributions.
        half_width: Half of its 95 % interval, downwards.
        biased: With pairs of a sample with itself.
    """

    value: float
    half_width: float
    biased: float

    def times(self, scale: float) -> Discrepancy:
        """In another unit."""
        return Discrepancy(scale * self.value, scale * self.half_width, scale * self.biased)

    def estimate(self, num_made: int, num_real: int, details: Mapping[str, object] | None = None) -> Estimate:
        """As what a metric gives."""
        low, high = (
            self.value - self.half_width,
            self.value + self.half_width + _bars.lean(self.half_width, self.biased),
        )
        extra = {"biased": self.biased, **(details or {})}
        return Estimate(self.value, low, high, num_made, num_real, "jackknife over both sides", extra)


def gaussian(sigma: float) -> Kernel:
    """The kernel exp(-|x - y|^2 / 2 sigma^2)."""

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        squares = a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T
        return torch.exp(squares.clamp(min=0) / (-2 * sigma**2))

    return kernel


def discrepancy(x: Tensor, y: Tensor, kernel: Kernel) -> Discrepancy:
    r"""The squared maximum mean discrepancy of a kernel over all pairs.

    .. math:: \frac{\sum_{i \neq j} k(x_i, x_j)}{n (n - 1)} + \frac{\sum_{i \neq j} k(y_i, y_j)}{m (m - 1)}
        - \frac{2 \sum_{ij} k(x_i, y_j)}{n m}

    The interval is that of the jackknife over the samples of both sides: the value without one sample follows from the
    row sums of the kernel. Where the distributions are equal, what a single sample does vanishes and the pairs remain, whose
    variance the jackknife counts twice. That double is worked out from the squares of the centred kernel, too, which is
    steadier, and is the least that is taken: the interval of two samples of one distribution is 1.4 times too wide.

    Args:
        x: Shape (n, D), float64, n at least 3.
        y: Shape (m, D), float64, m at least 3.
        kernel: Of two blocks of rows.

    References:
        A Kernel Two-Sample Test (Gretton et al., 2012), Lemma 6, https://jmlr.org/papers/v13/gretton12a.html
        Jackknifing U-Statistics (Arvesen, 1969), https://doi.org/10.1214/aoms/1177697287
    """
    n, m = len(x), len(y)
    rows_x, own_x, squares_x = _row_sums(x, kernel)
    rows_y, own_y, squares_y = _row_sums(y, kernel)
    across_x, across_y, squares = _cross_sums(x, y, kernel)
    cross = across_x.sum()
    within_x, within_y = rows_x.sum() / (n * (n - 1)), rows_y.sum() / (m * (m - 1))
    value = within_x + within_y - 2 * cross / (n * m)
    biased = (rows_x.sum() + own_x) / n**2 + (rows_y.sum() + own_y) / m**2 - 2 * cross / (n * m)
    without_x = _without(rows_x, across_x, m) + within_y
    without_y = _without(rows_y, across_y, n) + within_x
    half = _bars.half_width([_bars.of_leaving_one_out(without_x), _bars.of_leaving_one_out(without_y)])
    pairs = (
        2 * _centred_within(rows_x, squares_x) / n**2
        + 2 * _centred_within(rows_y, squares_y) / m**2
        + 4 * _centred_across(across_x, across_y, squares) / (n * m)
    )
    return Discrepancy(float(value), max(half, _bars.half_width([_bars.Variance(2 * pairs)])), float(biased))


def _centred_within(rows: Tensor, squares: float) -> float:
    """The mean square, over pairs, of what the kernel says of a pair beyond what it says of each of the two."""
    n = len(rows)
    mean, means = rows.sum() / (n * (n - 1)), rows / (n - 1)
    return max(0.0, squares / (n * (n - 1)) - float(2 * (means - mean).square().mean() + mean**2))


def _centred_across(of_x: Tensor, of_y: Tensor, squares: float) -> float:
    """The same over pairs of one sample of each side."""
    n, m = len(of_x), len(of_y)
    mean = of_x.sum() / (n * m)
    spread = (of_x / m - mean).square().mean() + (of_y / n - mean).square().mean()
    return max(0.0, squares / (n * m) - float(spread + mean**2))


def _without(rows: Tensor, across: Tensor, others: int) -> Tensor:
    """All that depends on a side, without each of its samples."""
    n = len(rows)
    return (rows.sum() - 2 * rows) / ((n - 1) * (n - 2)) - 2 * (across.sum() - across) / ((n - 1) * others)


def _row_sums(x: Tensor, kernel: Kernel) -> tuple[Tensor, float, float]:
    """For every row the sum over all others, shape (n,); the sum over pairs of a row with itself; the squares over others."""
    n, some = len(x), _side(len(x))
    sums, own, squares = torch.zeros(n, dtype=torch.float64), 0.0, 0.0
    for i in range(0, n, some):
        for j in range(i, n, some):  # the kernel is symmetric: half of the blocks tell all
            block = kernel(x[i : i + some], x[j : j + some])
            if i == j:
                diagonal = block.diagonal()
                own += float(diagonal.sum())
                sums[i : i + some] += block.sum(1) - diagonal
                squares += float(block.square().sum() - diagonal.square().sum())
            else:
                squares += 2 * float(block.square().sum())
                sums[i : i + some] += block.sum(1)
                sums[j : j + some] += block.sum(0)
    return sums, own, squares


def _cross_sums(x: Tensor, y: Tensor, kernel: Kernel) -> tuple[Tensor, Tensor, float]:
    """The sums over the other side, for every row of x, shape (n,), and of y, shape (m,); the sum of the squares."""
    some = _side(max(len(x), len(y)))
    of_x, of_y = torch.zeros(len(x), dtype=torch.float64), torch.zeros(len(y), dtype=torch.float64)
    squares = 0.0
    for i in range(0, len(x), some):
        for j in range(0, len(y), some):
            block = kernel(x[i : i + some], y[j : j + some])
            of_x[i : i + some] += block.sum(1)
            of_y[j : j + some] += block.sum(0)
            squares += float(block.square().sum())
    return of_x, of_y, squares


def _side(n: int) -> int:
    return min(n, int(_AT_ONCE**0.5))
