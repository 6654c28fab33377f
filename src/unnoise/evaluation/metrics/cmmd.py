"""The Gaussian kernel distance of normalised features, CMMD where they are CLIP's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ...options import option
from . import _rows
from ._discrepancy import discrepancy, gaussian
from .base import Cloud, Estimate, Metric, metrics

_SIGMA = 10.0
_SCALE = 1000.0


@metrics.register("cmmd")
@dataclass(frozen=True)
class CMMDMetric(Metric):
    r"""A thousand times the squared maximum mean discrepancy of features of length 1, under a Gaussian kernel of width 10.

    Unbiased; the authors' program counts pairs of a sample with itself, which is `biased` in the details. At this width the
    kernel is nearly a straight line, so that the number is mostly the distance of the means.

    References:
        Rethinking FID: Towards a Better Evaluation Metric for Image Generation (Jayasumana et al., 2024),
        https://arxiv.org/abs/2401.09603
    """

    better: ClassVar[Literal["lower", "higher"]] = "lower"
    unit: ClassVar[str] = "1000 x squared kernel distance of features"

    at_most: int = option(10_000, help="samples of each side to look at; the time grows with the square", low=3)

    def measure(self, made: Cloud, real: Cloud, seed: int = 0) -> Estimate:
        """See `Metric.measure`."""
        _rows.check("cmmd", made, real, least=3)
        x, y = _rows.both("cmmd", made, real, seed, self.at_most)
        found = discrepancy(_normalised(x), _normalised(y), gaussian(_SIGMA)).times(_SCALE)
        return found.estimate(len(x), len(y))


def _normalised(rows: Tensor) -> Tensor:
    return torch.nn.functional.normalize(rows, dim=1)
