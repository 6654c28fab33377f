"""The exact Wasserstein distance of the samples, by an assignment of one to one."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ...errors import MissingExtra
from ...options import option
from . import _bars, _rows
from .base import Cloud, Estimate, Metric, metrics


@metrics.register("wasserstein")
@dataclass(frozen=True)
class WassersteinMetric(Metric):
    r"""How far made samples must be moved to become the real ones: the root of the mean square, under the best assignment.

    .. math:: \min_\pi \left(\frac1n \sum_i |x_i - y_{\pi(i)}|^2\right)^{1/2}

    Of as many samples on both sides. In D dimensions two samples of one distribution are about :math:`n^{-1/D}` apart, so
    that the number is only to be compared with another of the same n; and a slight blur can lower it, for what lies nearer
    to the mean lies nearer to all else. The interval is what other samples, as many, would give; it follows from the prices
    of the assignment, which say how the cost changes where a sample is moved.

    References:
        The Hungarian Method for the Assignment Problem (Kuhn, 1955), https://doi.org/10.1002/nav.3800020109
        Central Limit Theorems for Empirical Transportation Cost in General Dimension (del Barrio and Loubes, 2019),
        https://arxiv.org/abs/1705.01299
    """

    better: ClassVar[Literal["lower", "higher"]] = "lower"
    unit: ClassVar[str] = "distance of samples"
    space: ClassVar[Literal["features", "data"]] = "data"

    at_most: int = option(2000, help="samples of each side to assign; the time grows with the cube", low=2)

    def measure(self, made: Cloud, real: Cloud, seed: int = 0) -> Estimate:
        """See `Metric.measure`.

        Raises:
            MissingExtra: SciPy is not installed.
        """
        if importlib.util.find_spec("scipy") is None:
            raise MissingExtra("the metric wasserstein", "scipy", "eval")
        from scipy.optimize import linear_sum_assignment

        _rows.check("wasserstein", made, real)
        x, y = _rows.both("wasserstein", made, real, seed, min(len(made), len(real), self.at_most))
        # One by one: what is nearly equal must come out nearly 0, which a matrix product would miss.
        costs = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square()
        assigned = torch.from_numpy(linear_sum_assignment(costs.numpy())[1])
        paid = costs.gather(1, assigned[:, None])[:, 0]
        square = float(paid.mean())
        of_x = _prices(costs[:, assigned], paid)
        half = _bars.half_width([_bars.of_influences(of_x), _bars.of_influences(paid - of_x)])
        low, high = math.sqrt(max(0.0, square - half)), math.sqrt(square + half)
        notes: tuple[str, ...] = ()
        if len(made) != len(x) or len(real) != len(y):
            notes = (f"{len(x)} of {len(made)} made and of {len(real)} real samples were drawn, as many on both sides",)
        way = "central limit theorem of the assignment's prices, both sides"
        return Estimate(math.sqrt(square), low, high, len(x), len(y), way, {}, notes)


def _prices(costs: Tensor, paid: Tensor) -> Tensor:
    """Prices f of the rows of an optimal assignment: f_i + g_j <= costs_ij, with equality where i is assigned to j = i.

    They are shortest ways through all exchanges. An optimal assignment has no way around that gains, so that none is longer
    than n; a rounding that gains again and again is cut off there.
    """
    gains = costs - paid
    prices = torch.zeros(len(costs), dtype=costs.dtype)
    for _ in range(len(costs)):
        lower = torch.minimum(prices, (gains + prices).min(1).values)
        if torch.equal(lower, prices):
            break
        prices = lower
    return prices
