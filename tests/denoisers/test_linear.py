"""The best linear denoiser beside normal distributions, where it is exact, and beside least squares, where it is not."""

import pytest
import torch

from unnoise.denoisers.linear import LARGEST, LinearDenoiser
from unnoise.denoisers.oracle import GaussianMixtureOracle
from unnoise.errors import ShapeError
from unnoise.process.flow import FlowSchedule
from unnoise.process.linear import LinearSchedule
from unnoise.process.variance_exploding import VarianceExplodingSchedule

SCHEDULES = [LinearSchedule(), FlowSchedule(), VarianceExplodingSchedule()]


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def oval(n=4000, seed=0):
    """Points of a normal distribution of three quite different variances, turned and moved; its mean and covariance."""
    turn = torch.linalg.qr(normal(3, 3, seed=7))[0]
    factor = turn @ torch.diag(torch.tensor([2.0, 0.5, 0.05], dtype=torch.float64))
    mean = torch.tensor([1.0, -2.0, 0.3], dtype=torch.float64)
    return mean + normal(n, 3, seed=seed) @ factor.T, mean, factor @ factor.T


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.registered_name)
def test_it_is_the_exact_denoiser_of_one_round_normal_distribution(schedule):
    mean, std = torch.tensor([[0.4, -1.0]], dtype=torch.float64), torch.tensor([0.7], dtype=torch.float64)
    exact = GaussianMixtureOracle(mean, std, torch.ones(1), schedule)
    linear = LinearDenoiser(mean[0], torch.eye(2)[:1], std**2, 0.49, schedule)  # one direction told, the other the rest
    assert linear.sigma_data == pytest.approx(0.7)
    x = normal(6, 2) * 3
    for t in (torch.tensor(0.3, dtype=torch.float64), torch.linspace(0, 1, 6, dtype=torch.float64)):
        torch.testing.assert_close(linear(x, t), exact(x, t), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("t", [0.05, 0.5, 0.9])
def test_its_error_on_normal_data_is_the_known_one(t):
    schedule, at = FlowSchedule(), torch.tensor(t, dtype=torch.float64)
    points, *_ = oval()
    linear = LinearDenoiser.of(points, schedule)
    x_0, _, covariance = oval(40_000, seed=1)
    alpha, sigma = float(schedule.alpha(at)), float(schedule.sigma(at))
    found = float((linear(alpha * x_0 + sigma * normal(40_000, 3, seed=2), at) - x_0).square().mean())
    variances = torch.linalg.eigvalsh(covariance)
    known = float((variances * sigma**2 / (alpha**2 * variances + sigma**2)).mean())
    assert found == pytest.approx(known, rel=0.02)


def test_no_line_fits_other_data_better():
    points = torch.cat([normal(600, 2) * 0.1 + 1, normal(600, 2, seed=1) * 0.3 - 1])  # two heaps
    alpha, sigma, at = 0.6, 0.4, torch.tensor(0.4, dtype=torch.float64)
    x_0 = points.repeat(100, 1)
    x_t = alpha * x_0 + sigma * normal(*x_0.shape, seed=2)
    rows = torch.cat([x_t, torch.ones(len(x_t), 1)], dim=1)
    fitted = rows @ torch.linalg.lstsq(rows, x_0).solution
    torch.testing.assert_close(LinearDenoiser.of(points, FlowSchedule())(x_t, at), fitted, rtol=0, atol=0.02)


def test_samples_of_more_numbers_than_there_are_samples_have_their_variance_spread_over_the_rest():
    points = normal(40, 1, 10, 10) + torch.linspace(-3, 3, 40, dtype=torch.float64).reshape(-1, 1, 1, 1)
    linear = LinearDenoiser.of(points, FlowSchedule())
    assert linear.directions.shape == (10, 100)
    torch.testing.assert_close(linear.directions @ linear.directions.T, torch.eye(10, dtype=torch.float64))
    brightness = linear.directions[0].abs()
    torch.testing.assert_close(brightness, torch.full_like(brightness, 0.1), rtol=0, atol=0.03)
    total = (points - points.mean(0)).square().mean(0).sum()
    assert float(linear.variances.sum()) + 90 * linear.rest == pytest.approx(float(total), rel=1e-9)
    fewer = LinearDenoiser.of(torch.cat([points] * 60).flatten(1).repeat(1, 30), FlowSchedule())
    assert fewer.directions.shape == (LARGEST // 4, 3000)


def test_data_without_any_spread_and_without_noise_is_its_mean():
    linear = LinearDenoiser.of(torch.full((5, 2), 3.0), FlowSchedule())
    for t in (0.0, 0.5, 1.0):
        found = linear(torch.tensor([[2.0, 4.0]]), torch.tensor(t, dtype=torch.float64))
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, torch.full((1, 2), 3.0))


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ShapeError, match=r"expected directions of shape \(1, 2\), got \(2, 2\)"):
        LinearDenoiser(torch.zeros(2), torch.eye(2), torch.ones(1), 1.0, FlowSchedule())
    linear = LinearDenoiser.of(normal(8, 2), FlowSchedule())
    with pytest.raises(ShapeError, match=r"expected x_t of shape \(B, 2\), got \(4, 3\)"):
        linear(normal(4, 3), torch.tensor(0.5))
