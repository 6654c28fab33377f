"""How many real samples have a made one near."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from ...options import option
from . import _bars, _rows
from ._neighbours import least, manifolds
from .base import Cloud, Estimate, Metric, metrics


@metrics.register("coverage")
@dataclass(frozen=True)
class CoverageMetric(Metric):
    r"""The share of real samples whose ball, which reaches to the k-th nearest real neighbour, holds a made sample.

    Diversity: what the model never makes is missing, and stray samples do not help. For a model as good as the data and as
    many samples on both sides, :math:`1 - 2^{-k}` is to be expected.

    References:
        Reliable Fidelity and Diversity Metrics for Generative Models (Naeem et al., 2020), Section 3,
        https://arxiv.org/abs/2002.09797
    """

    better: ClassVar[Literal["lower", "higher"]] = "higher"
    unit: ClassVar[str] = "share of real samples"

    k: int = option(5, help="which neighbour a ball reaches to", low=1, high=100)
    at_most: int = option(10_000, help="samples of each side to look at; the time grows with the square", low=1000)

    def measure(self, made: Cloud, real: Cloud, seed: int = 0) -> Estimate:
        """See `Metric.measure`."""
        _rows.check("coverage", made, real, least=least(self.k))
        found = manifolds(made, real, self.k, seed, self.at_most)
        num_made, num_real = min(len(made), self.at_most), min(len(real), self.at_most)
        reach = found.made_in_real[self.k]
        value = float(reach.hit.double().mean())
        low, high = _bars.around_share(value, _bars.both_sides(num_made, num_real), reach.chance_of_hits())
        return Estimate(value, low, high, num_made, num_real, "random groups of both sides")
