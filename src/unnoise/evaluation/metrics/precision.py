"""How many made samples lie where real ones do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from ...options import option
from . import _bars, _rows
from ._neighbours import least, manifolds
from .base import Cloud, Estimate, Metric, metrics


@metrics.register("precision")
@dataclass(frozen=True)
class PrecisionMetric(Metric):
    r"""The share of made samples that lie in a ball around a real one, which reaches to its k-th nearest real neighbour.

    Quality without diversity: one good sample made a thousand times scores 1. Of real data against real data it is not 1,
    but what `precision` of a second sample of the data would be.

    References:
        Improved Precision and Recall Metric for Assessing Generative Models (Kynkäänniemi et al., 2019), Equation 2,
        https://arxiv.org/abs/1904.06991
    """

    better: ClassVar[Literal["lower", "higher"]] = "higher"
    unit: ClassVar[str] = "share of made samples"

    k: int = option(3, help="which neighbour a ball reaches to", low=1, high=100)
    at_most: int = option(10_000, help="samples of each side to look at; the time grows with the square", low=1000)

    def measure(self, made: Cloud, real: Cloud, seed: int = 0) -> Estimate:
        """See `Metric.measure`."""
        _rows.check("precision", made, real, least=least(self.k))
        found = manifolds(made, real, self.k, seed, self.at_most)
        num_made, num_real = min(len(made), self.at_most), min(len(real), self.at_most)
        reach = found.made_in_real[self.k]
        value = float((reach.counts > 0).double().mean())
        low, high = _bars.around_share(value, _bars.both_sides(num_made, num_real), reach.chance_of_coverage())
        way = "share of the made samples, random groups of the real ones"
        return Estimate(value, low, high, num_made, num_real, way)
