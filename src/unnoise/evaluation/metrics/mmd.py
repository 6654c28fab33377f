"""The Gaussian kernel distance of the samples themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ...errors import DataError
from ...options import option
from . import _rows
from ._discrepancy import discrepancy, gaussian
from .base import Cloud, Estimate, Metric, metrics

_FOR_WIDTH = 1000  # real samples whose distances the width is the median of


@metrics.register("mmd")
@dataclass(frozen=True)
class MMDMetric(Metric):
    r"""The squared maximum mean discrepancy under a Gaussian kernel as wide as real samples lie apart, unbiased.

    The kernel is :math:`\exp(-|x - y|^2 / 2 \sigma^2)`.

    The width is the median distance of real samples, so that the number does not change with the unit of the data.

    References:
        A Kernel Two-Sample Test (Gretton et al., 2012), Lemma 6 and Section 8, https://jmlr.org/papers/v13/gretton12a.html
    """

    better: ClassVar[Literal["lower", "higher"]] = "lower"
    unit: ClassVar[str] = "squared kernel distance"
    space: ClassVar[Literal["features", "data"]] = "data"

    at_most: int = option(10_000, help="samples of each side to look at; the time grows with the square", low=3)

    def measure(self, made: Cloud, real: Cloud, seed: int = 0) -> Estimate:
        """See `Metric.measure`."""
        _rows.check("mmd", made, real, least=3)
        x, y = _rows.both("mmd", made, real, seed, self.at_most)
        width = _median_distance(y, seed)
        centre = y.mean(0)  # distances by a matrix product lose digits far from 0
        return discrepancy(x - centre, y - centre, gaussian(width)).estimate(len(x), len(y), {"width": width})


def _median_distance(rows: Tensor, seed: int) -> float:
    few = rows[_rows.at_most(seed, "mmd width", len(rows), _FOR_WIDTH)]
    width = float(torch.pdist(few).median())
    if width == 0:
        raise DataError(
            "mmd: more than half of all pairs of real samples are equal, so that their median distance is 0"
        )
    return width
