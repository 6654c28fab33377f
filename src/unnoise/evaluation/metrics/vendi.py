"""How many different samples there are, as it were."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from . import _bars, _rows
from .base import Cloud, Estimate, Metric, metrics


@metrics.register("vendi")
@dataclass(frozen=True)
class VendiMetric(Metric):
    r"""The Vendi score: the exponential of the entropy of the eigenvalues of the samples' similarities.

    .. math:: \exp\left(-\sum_i \lambda_i \log \lambda_i\right), \qquad \lambda \text{ of }
        \tfrac1N \hat X^\top \hat X, \quad \hat x = x / |x|

    Between 1, all samples are alike, and the smaller of N and D. It looks at the made samples alone; the score of the real
    ones is in the details, for a model should have neither fewer nor many more. Scores grow with N, so that both are only
    to be compared where there are as many. To first order a sample moves the entropy in proportion to
    :math:`-\hat x^\top \log(\tfrac1N \hat X^\top \hat X)\, \hat x`; the interval is a jackknife to second order, where
    its own part in the matrix counts too.

    References:
        The Vendi Score: A Diversity Evaluation Metric for Machine Learning (Friedman and Dieng, 2022),
        https://arxiv.org/abs/2210.02410
    """

    better: ClassVar[Literal["lower", "higher"]] = "higher"
    unit: ClassVar[str] = "different samples, as it were"

    def measure(self, made: Cloud, real: Cloud, seed: int = 0) -> Estimate:
        """See `Metric.measure`."""
        _rows.check("vendi", made, real)
        ours, theirs = _score(made.features), _score(real.features)
        details = {"real": theirs.value, "real_low": theirs.low, "real_high": theirs.high}
        notes: tuple[str, ...] = ()
        if len(made) != len(real):
            notes = (
                f"scores grow with the number of samples, and there are {len(made)} made and {len(real)} real ones",
            )
        way = "jackknife over the made samples, to second order"
        return Estimate(ours.value, ours.low, ours.high, len(made), len(real), way, details, notes)


class _Score(NamedTuple):
    value: float
    low: float
    high: float


def _score(features: Tensor) -> _Score:
    n, width = features.shape
    similarities = torch.zeros(width, width, dtype=torch.float64)
    for block in _rows.blocks(features):
        rows = _normalised(block)
        similarities += rows.T @ rows
    values, axes = torch.linalg.eigh(similarities / n)
    kept = values > values[-1] * width * torch.finfo(torch.float64).eps
    values, axes = values[kept], axes[:, kept]
    entropy = float(-(values * values.log()).sum())
    slopes = _slopes_of_log(values)
    influences = []
    for block in _rows.blocks(features):
        shares = (_normalised(block) @ axes).square()
        influences.append(shares @ -values.log() + (shares @ slopes * shares).sum(1) / (2 * n))
    half = _until_each_other(torch.cat(influences), fitted=math.exp(entropy))
    low, high = max(0.0, entropy - half), min(math.log(min(n, width)), entropy + half)
    return _Score(math.exp(entropy), math.exp(low), math.exp(max(high, entropy)))


def _until_each_other(influences: Tensor, fitted: float) -> float:
    r"""Half of the interval in which another score lies whose own interval holds this one, 95 times in 100.

    The shorter of the two intervals decides. Of two standard errors with a relative spread c the smaller one is shorter by
    :math:`c / \sqrt\pi` on average, and :math:`c^2 = (\kappa - 1) / 4 n` where the influences have the kurtosis kappa.
    As in a regression, degrees of freedom are gone to what was fitted to these same samples: directions, and their sizes.
    """
    away = influences - influences.mean()
    variance = float(away.square().mean())
    if variance == 0:
        return 0.0
    kurtosis = float(away.pow(4).mean()) / variance**2
    spread = math.sqrt((kurtosis - 1) / (4 * len(influences)))
    chance = _bars.of_influences(influences)
    left = max(0.5, 1 - 2 * fitted / len(influences))
    half = _bars.until_another(_bars.Variance(chance.value / left, chance.degrees))
    return half / max(0.5, 1 - spread / math.sqrt(math.pi))


def _normalised(rows: Tensor) -> Tensor:
    # All of length 1, so that the eigenvalues sum to 1; a row of zeros has no direction and is alike none.
    return torch.nn.functional.normalize(rows, dim=1)


def _slopes_of_log(values: Tensor) -> Tensor:
    """(log a - log b) / (a - b) of all pairs of eigenvalues, 1 / a where they are equal: the derivative of a matrix's log."""
    ratio = torch.log(values[:, None] / values)
    rise = torch.where(ratio.abs() < 1e-6, torch.ones_like(ratio), ratio / torch.expm1(ratio))
    return rise / values
