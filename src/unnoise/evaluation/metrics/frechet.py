"""The Fréchet distance of features, FID where they are Inception's, with its error and without the bias of few samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ...options import option
from . import _bars, _rows
from .base import Cloud, Estimate, Metric, metrics
from .moments import Moments, frechet_distance, transport


@metrics.register("fid")
@dataclass(frozen=True)
class FrechetMetric(Metric):
    r"""How far apart two clouds are, each seen as the Gaussian of its mean and covariance.

    .. math:: |\mu_x - \mu_y|^2 + \mathrm{tr}\left(\Sigma_x + \Sigma_y - 2 (\Sigma_x \Sigma_y)^{1/2}\right)

    `value` is the plain number of the literature, and its interval says what other samples, as many on both sides, would
    give. It is too high by about a constant over N; `fid_infinity` in the details is what is left at 1/N = 0 of a line
    through the mean distance of the halves, of the quarters and of the whole. Each part is as large a share of the made as
    of the real samples, and each sample counts once in every size, so that the line costs little certainty.

    References:
        GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium (Heusel et al., 2017), Equation 6,
        https://arxiv.org/abs/1706.08500
        Effectively Unbiased FID and Inception Score and where to find them (Chong and Forsyth, 2020), Section 3.3,
        https://arxiv.org/abs/1911.07023
        Wasserstein Riemannian Geometry of Gaussian Densities (Malagò, Montrucchio and Pistone, 2018), for the derivative,
        https://arxiv.org/abs/1801.09269
    """

    better: ClassVar[Literal["lower", "higher"]] = "lower"
    unit: ClassVar[str] = "squared distance of features"

    extrapolate: bool = option(True, help="also work out what it would be for endlessly many samples")

    def measure(self, made: Cloud, real: Cloud, seed: int = 0) -> Estimate:
        """See `Metric.measure`."""
        _rows.check("fid", made, real)
        x, y = Moments.of(_rows.blocks(made.features)), Moments.of(_rows.blocks(real.features))
        value = frechet_distance(x, y)
        half = _half_width(made.features, real.features, x, y)
        details: dict[str, object] = {}
        if self.extrapolate:
            details = _extrapolated(made.features, real.features, value, half, seed)
        return Estimate(
            value,
            max(0.0, value - half),
            value + half + _bars.lean(half, value),
            len(made),
            len(real),
            "infinitesimal jackknife over both sides",
            details,
            _notes(x, y, value, half, details),
        )


def _half_width(made: Tensor, real: Tensor, x: Moments, y: Moments) -> float:
    """Half of the 95 % interval, from what every sample of either side does to the distance."""
    of_made, of_real, weights = transport(x, y)
    parts = (
        _influences(made, x, x.mean - y.mean, of_made, weights),
        _influences(real, y, y.mean - x.mean, of_real, weights),
    )
    half = _bars.half_width([_bars.of_influences(part) for part in parts])
    return max(half, _bars.half_width([_bars.Variance(2 * _variance_of_equals(x, y))]))


def _variance_of_equals(x: Moments, y: Moments) -> float:
    r"""The variance of the distance of two samples of one Gaussian, whose covariance is the mean of the two.

    Between equals the single sample does nothing, and the distance is a square of differences: to second order
    :math:`|\delta|^2 + \sum_{i<j} \delta_{ij}^2 / (\lambda_i + \lambda_j) + \sum_i \delta_{ii}^2 / 4\lambda_i` in the axes
    of the covariance. The jackknife finds double its variance on average, though less where the distance came out low.
    """
    variances = torch.linalg.eigvalsh((x.covariance + y.covariance) / 2).clamp(min=0)
    sums = (variances[:, None] + variances).clamp(min=torch.finfo(torch.float64).tiny)
    pairs = (variances[:, None] * variances / sums).square()
    # Mean: 2 v^2 of each axis. Covariance: 2 (v w / (v + w))^2 of each pair of axes, v^2 / 2 of each with itself, whose
    # term in the sum over all pairs, both orders, is v^2 / 4.
    return (1 / x.n + 1 / y.n) ** 2 * float(2.25 * variances.square().sum() + pairs.sum())


def _influences(features: Tensor, own: Moments, difference: Tensor, matrix: Tensor, weights: Tensor) -> Tensor:
    found = []
    for block in _rows.blocks(features):
        away = block - own.mean
        moved = (away @ matrix.T).square() @ weights
        found.append(2 * away @ difference + away.square().sum(1) - moved)
    return torch.cat(found)


def _extrapolated(made: Tensor, real: Tensor, value: float, half: float, seed: int) -> dict[str, object]:
    """The value at 1/N = 0 of a line through parts of 1, 1/2 and 1/4 of the samples, and its interval.

    That is as wide as the interval of the whole, and wider by how far the line moves without its far end: with few samples
    for the number of features the points lie on a curve.
    """
    if min(len(made), len(real)) < 8:
        return {}
    orders = _rows.shuffled(seed, "fid made", len(made)), _rows.shuffled(seed, "fid real", len(real))
    fewest = min(len(made), len(real))
    means, sizes = [value], [fewest]
    for parts in (2, 4):
        pairs = zip(*(order.tensor_split(parts) for order in orders), strict=True)
        distances = [
            frechet_distance(Moments.of(_rows.blocks(made, m)), Moments.of(_rows.blocks(real, r))) for m, r in pairs
        ]
        means.append(sum(distances) / parts)
        sizes.append(fewest // parts)
    # Least squares through the mean distances at 1, 2 and 4 times 1/N, at 0.
    limit = means[0] + means[1] / 2 - means[2] / 2
    lean = _bars.lean(half, value)
    half += abs(limit - (2 * means[0] - means[1]))
    return {
        "fid_infinity": limit,
        "fid_infinity_low": limit - half,
        "fid_infinity_high": limit + half + lean,
        "bias": value - limit,
        "curve": [[size, mean] for size, mean in zip(sizes, means, strict=True)],
    }


def _notes(x: Moments, y: Moments, value: float, half: float, details: dict[str, object]) -> tuple[str, ...]:
    fewest = min(x.n, y.n)
    if fewest > x.dim:
        return ()
    cost = f"the interval is {half:.3g} wide to each side"
    if "bias" in details:
        cost += f", and about {details['bias']:.3g} of {value:.4g} is bias"
    return (f"{fewest} samples are not more than the {x.dim} features, so their covariance is flat: {cost}",)
