import math

import pytest
import torch
from torchmetrics.image.fid import _compute_fid

from unnoise.errors import DataError, ShapeError
from unnoise.evaluation.metrics.base import Cloud, metrics
from unnoise.evaluation.metrics.frechet import FrechetMetric
from unnoise.evaluation.metrics.moments import Moments, frechet_distance


def normal(n, d, seed=0):
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def mixed(n, d, seed=0, decay=2.0):
    """Features as networks give them: correlated, with variances that fall over orders of magnitude."""
    scales = torch.logspace(0, -decay, d, dtype=torch.float64)
    return torch.relu((normal(n, d, seed) * scales) @ normal(d, d, seed=99) + 0.3)


@pytest.mark.parametrize(("n", "m", "d"), [(400, 300, 32), (200, 200, 64), (40, 50, 64)], ids=str)
def test_it_is_the_number_of_torchmetrics(n, m, d):
    x, y = mixed(n, d), 1.2 * mixed(m, d, seed=1)
    expected = float(_compute_fid(x.mean(0), torch.cov(x.T), y.mean(0), torch.cov(y.T)))
    assert FrechetMetric(extrapolate=False).measure(Cloud(x), Cloud(y)).value == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("n", "d"), [(300, 64), (65, 64), (40, 64), (2, 5)], ids=str)
def test_a_cloud_is_at_distance_0_from_itself(n, d):
    x = 10 * mixed(n, d)
    x[:, 1] = x[:, 0]  # a feature that is another again makes the covariance flat at any n
    moments = Moments.of([x])
    # The terms that cancel are of the size of the traces, some 1e5, and rounding is 1e-16 of that for each dimension.
    assert frechet_distance(moments, Moments.of(x.flip(0).split(7))) == pytest.approx(0, abs=1e-6)


def test_moments_that_are_known_give_the_distance_of_the_formula():
    # Commuting covariances: the distance is that of the standard deviations along each axis.
    a, b = torch.tensor([1.0, 2.0, 0.5]).double(), torch.tensor([3.0, 2.0, 0.0]).double()
    axes = torch.linalg.qr(normal(3, 3)).Q
    first, second = Moments(3), Moments(3)
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0]).double()] * 3)  # mean 0, variance 8/7
    first.update(corners * a @ axes)
    second.update(corners * b @ axes + 1)
    exact = 3 + 8 / 7 * float((a - b).square().sum())
    assert frechet_distance(first, second) == pytest.approx(exact, rel=1e-9)


def test_features_that_are_not_finite_are_counted():
    x = normal(20, 4)
    x[3, 1], x[7, 0] = math.nan, math.inf
    with pytest.raises(DataError, match="2 of 20 made samples"):
        metrics.build("fid").measure(Cloud(x), Cloud(normal(20, 4)))


def test_a_covariance_needs_two_samples_and_both_sides_one_width():
    with pytest.raises(DataError, match="at least 2 real samples, got 1"):
        metrics.build("fid").measure(Cloud(normal(3, 4)), Cloud(normal(1, 4)))
    with pytest.raises(ShapeError, match="4 of the made samples and 5"):
        metrics.build("fid").measure(Cloud(normal(3, 4)), Cloud(normal(3, 5)))


def test_fewer_samples_than_features_are_reported_with_what_they_cost():
    found = metrics.build("fid").measure(Cloud(mixed(40, 64)), Cloud(mixed(90, 64, seed=1)))
    assert "40 samples are not more than the 64 features" in found.notes[0]
    assert f"{found.details['bias']:.3g}" in found.notes[0]
    assert not metrics.build("fid").measure(Cloud(mixed(90, 64)), Cloud(mixed(90, 64, seed=1))).notes
