"""The Wasserstein distance of the samples, seen along random directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ...options import option
from ..distances import directions, sliced_wasserstein
from . import _bars, _rows
from .base import Cloud, Estimate, Metric, metrics

_AT_ONCE = 2**22  # values of one block of projections, to bound memory


@metrics.register("sliced_wasserstein")
@dataclass(frozen=True)
class SlicedWassersteinMetric(Metric):
    r"""How far the samples must be moved, on average over directions, in the units of the data.

    A mean of absolute values, so that it is above 0 for equal distributions, by about a constant over the root of N. The
    interval is for the directions that were drawn, which the seed gives: along each, a sample moves the cost by its
    potential, whose slope is :math:`p\,|x - T(x)|^{p - 1}` towards where it would be carried.

    References:
        Sliced and Radon Wasserstein Barycenters of Measures (Bonneel et al., 2015), Definition 2,
        https://doi.org/10.1007/s10851-014-0506-3
        Statistical Inference with Regularized Optimal Transport (Goldfeld et al., 2022), for the potentials,
        https://arxiv.org/abs/2205.04283
    """

    better: ClassVar[Literal["lower", "higher"]] = "lower"
    unit: ClassVar[str] = "distance of samples"
    space: ClassVar[Literal["features", "data"]] = "data"

    directions: int = option(256, help="directions that the mean is taken over", low=1)
    order: int = option(1, help="p, the power of distances that is averaged", low=1)

    def measure(self, made: Cloud, real: Cloud, seed: int = 0) -> Estimate:
        """See `Metric.measure`."""
        _rows.check("sliced_wasserstein", made, real)
        x, y = _rows.whole(made.features), _rows.whole(real.features)
        value = sliced_wasserstein(x, y, self.directions, self.order, seed)
        half = _bars.half_width([_bars.of_influences(part) for part in self._influences(x, y, seed)])
        if value > 0:  # from the mean of powers to its root
            half *= value ** (1 - self.order) / self.order
        return Estimate(
            value,
            max(0.0, value - half),
            value + half,
            len(made),
            len(real),
            "infinitesimal jackknife over both sides",
            {"directions": self.directions if x.shape[1] > 1 else 1},
        )

    def _influences(self, x: Tensor, y: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """The mean potential of every sample of either side, shapes (N,) and (M,)."""
        axes = directions(self.directions, x.shape[1], seed) if x.shape[1] > 1 else torch.ones(1, 1).double()
        of_x, of_y = torch.zeros(len(x), dtype=torch.float64), torch.zeros(len(y), dtype=torch.float64)
        for some in axes.split(max(1, _AT_ONCE // (len(x) + len(y)))):
            a, b = (x @ some.T).sort(0), (y @ some.T).sort(0)
            of_x += _potentials(a.values, a.indices, b.values, self.order)
            of_y += _potentials(b.values, b.indices, a.values, self.order)
        return of_x / len(axes), of_y / len(axes)


def _potentials(own: Tensor, order: Tensor, other: Tensor, power: int) -> Tensor:
    """The sum over directions of the potential of every sample.

    Args:
        own: Sorted along each of K directions, shape (N, K).
        order: Which sample stands where.
        other: Of the other side, sorted, shape (M, K).
        power: p.
    """
    n, m = len(own), len(other)
    carried = other[((torch.arange(n) + 0.5) * (m / n)).long().clamp(max=m - 1)]
    away = own - carried
    slopes = power * away.abs().pow(power - 1) * away.sign()
    steps = own.diff(dim=0) * (slopes[1:] + slopes[:-1]) / 2
    heights = torch.cat([torch.zeros_like(own[:1]), steps.cumsum(0)])
    return torch.zeros_like(own).scatter(0, order, heights - heights.mean(0)).sum(1)
