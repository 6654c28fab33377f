"""How densely real samples lie where made ones are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from ...options import option
from . import _bars, _rows
from ._neighbours import least, manifolds
from .base import Cloud, Estimate, Metric, metrics


@metrics.register("density")
@dataclass(frozen=True)
class DensityMetric(Metric):
    r"""In how many balls around real samples a made one lies on average, over k; each reaches to the k-th real neighbour.

    As precision, but a single outlier among the real samples counts little. Above 1 where made samples keep to the dense
    places.

    References:
        Reliable Fidelity and Diversity Metrics for Generative Models (Naeem et al., 2020), Section 3,
        https://arxiv.org/abs/2002.09797
    """

    better: ClassVar[Literal["lower", "higher"]] = "higher"
    unit: ClassVar[str] = "balls around real samples, over k"

    k: int = option(5, help="which neighbour a ball reaches to", low=1, high=100)
    at_most: int = option(10_000, help="samples of each side to look at; the time grows with the square", low=1000)

    def measure(self, made: Cloud, real: Cloud, seed: int = 0) -> Estimate:
        """See `Metric.measure`."""
        _rows.check("density", made, real, least=least(self.k))
        found = manifolds(made, real, self.k, seed, self.at_most)
        num_made, num_real = min(len(made), self.at_most), min(len(real), self.at_most)
        reach = found.made_in_real[self.k]
        value = float(reach.counts.mean()) / self.k
        half = _bars.until_another(reach.chance_of_counts()) / self.k
        way = "mean over the made samples, random groups of the real ones"
        return Estimate(value, max(0.0, value - half), value + half, num_made, num_real, way)
