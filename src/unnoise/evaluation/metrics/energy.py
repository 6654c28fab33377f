"""The energy distance of the samples themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ...options import option
from . import _rows
from ._discrepancy import discrepancy
from .base import Cloud, Estimate, Metric, metrics

_FEW = 8  # dimensions in which distances are summed one by one


@metrics.register("energy")
@dataclass(frozen=True)
class EnergyMetric(Metric):
    r"""The energy distance, :math:`2 E|X - Y| - E|X - X'| - E|Y - Y'|`, in the units of the data and unbiased.

    `biased` in the details counts pairs of a sample with itself and is what `distances.energy_distance` gives: at
    least 0, and too high by about :math:`E|X - X'| / N + E|Y - Y'| / M`.

    References:
        Energy statistics: A class of statistics based on distances (Székely and Rizzo, 2013), Equation 5.1,
        https://doi.org/10.1016/j.jspi.2013.03.018
    """

    better: ClassVar[Literal["lower", "higher"]] = "lower"
    unit: ClassVar[str] = "distance of samples"
    space: ClassVar[Literal["features", "data"]] = "data"

    at_most: int = option(10_000, help="samples of each side to look at; the time grows with the square", low=3)

    def measure(self, made: Cloud, real: Cloud, seed: int = 0) -> Estimate:
        """See `Metric.measure`."""
        _rows.check("energy", made, real, least=3)
        x, y = _rows.both("energy", made, real, seed, self.at_most)
        centre = y.mean(0)  # distances by a matrix product lose digits far from 0
        return discrepancy(x - centre, y - centre, _closeness).estimate(len(x), len(y))


def _closeness(a: Tensor, b: Tensor) -> Tensor:
    mode = "use_mm_for_euclid_dist" if a.shape[1] > _FEW else "donot_use_mm_for_euclid_dist"
    return -torch.cdist(a, b, compute_mode=mode)
