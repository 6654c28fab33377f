"""The kernel distance of features, KID where they are Inception's: as FID, without its bias of few samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from ...options import option
from . import _rows
from ._discrepancy import discrepancy
from .base import Cloud, Estimate, Metric, metrics


@metrics.register("kid")
@dataclass(frozen=True)
class KIDMetric(Metric):
    r"""The squared maximum mean discrepancy under a cubic kernel: a distance of features that is fair for few samples, too.

    The kernel is :math:`(x^\top y / D + 1)^3`.

    Unbiased, over all pairs rather than over the usual random subsets, which only add noise. It sees means, covariances
    and skews; for equal distributions it is 0 on average, and so below 0 about half of the time.

    References:
        Demystifying MMD GANs (Bińkowski et al., 2018), Section 4, https://arxiv.org/abs/1801.01401
    """

    better: ClassVar[Literal["lower", "higher"]] = "lower"
    unit: ClassVar[str] = "squared kernel distance of features"

    at_most: int = option(10_000, help="samples of each side to look at; the time grows with the square", low=3)

    def measure(self, made: Cloud, real: Cloud, seed: int = 0) -> Estimate:
        """See `Metric.measure`."""
        _rows.check("kid", made, real, least=3)
        x, y = _rows.both("kid", made, real, seed, self.at_most)

        def kernel(a: Tensor, b: Tensor) -> Tensor:
            return (a @ b.T / a.shape[1] + 1) ** 3

        return discrepancy(x, y, kernel).estimate(len(x), len(y))
