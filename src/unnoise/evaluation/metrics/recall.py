"""How many real samples lie where made ones do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from ...options import option
from . import _bars, _rows
from ._neighbours import least, manifolds
from .base import Cloud, Estimate, Metric, metrics


@metrics.register("recall")
@dataclass(frozen=True)
class RecallMetric(Metric):
    r"""The share of real samples that lie in a ball around a made one, which reaches to its k-th nearest made neighbour.

    Diversity: what the model never makes is missing. A few stray samples far out have large balls and raise it; coverage
    is not open to that.

    References:
        Improved Precision and Recall Metric for Assessing Generative Models (Kynkäänniemi et al., 2019), Equation 2,
        https://arxiv.org/abs/1904.06991
    """

    better: ClassVar[Literal["lower", "higher"]] = "higher"
    unit: ClassVar[str] = "share of real samples"

    k: int = option(3, help="which neighbour a ball reaches to", low=1, high=100)
    at_most: int = option(10_000, help="samples of each side to look at; the time grows with the square", low=1000)

    def measure(self, made: Cloud, real: Cloud, seed: int = 0) -> Estimate:
        """See `Metric.measure`."""
        _rows.check("recall", made, real, least=least(self.k))
        found = manifolds(made, real, self.k, seed, self.at_most)
        num_made, num_real = min(len(made), self.at_most), min(len(real), self.at_most)
        reach = found.real_in_made[self.k]
        value = float((reach.counts > 0).double().mean())
        low, high = _bars.around_share(value, _bars.both_sides(num_made, num_real), reach.chance_of_coverage())
        way = "share of the real samples, random groups of the made ones"
        return Estimate(value, low, high, num_made, num_real, way)
