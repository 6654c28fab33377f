"""Annealed Langevin dynamics against the paper's algorithm, between schedules, and in the limit of many levels."""

import math

import pytest
import torch

from unnoise.denoisers.oracle import GaussianMixtureOracle
from unnoise.process.flow import FlowSchedule
from unnoise.process.sub_vp import SubVPSchedule
from unnoise.process.variance_exploding import VarianceExplodingSchedule
from unnoise.process.vp import VPSchedule
from unnoise.samplers import grids
from unnoise.samplers.annealed_langevin import AnnealedLangevinSampler
from unnoise.samplers.base import sample


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


def mixture(schedule):
    return GaussianMixtureOracle(f64([[1.0, 0.3], [-0.8, 0.6]]), f64([0.5, 0.3]), f64([0.6, 0.4]), schedule)


def in_turn(z):
    """A source that hands out the rows of z one after the other, whatever it is asked for."""
    rows = iter(z)
    return lambda like, t, s, draw=0: next(rows)


def draws(n):
    return torch.randn(n, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


def algorithm(oracle, x, sigmas, counts, step_size, z):
    """Algorithm 1 of Song and Ermon, with their letters: epsilon over sigma_L^2 is the step size; then the last estimate."""
    epsilon, rows = step_size * sigmas[-1] ** 2, iter(z)
    for sigma_i, count in zip(sigmas, counts, strict=True):
        t = oracle.schedule.time_of(-2 * f64(sigma_i).log())
        alpha_i = epsilon * sigma_i**2 / sigmas[-1] ** 2
        for _ in range(count):
            x = x + alpha_i / 2 * oracle.score(x, t) + math.sqrt(alpha_i) * next(rows)
    return x + sigmas[-1] ** 2 * oracle.score(x, t)


@pytest.mark.parametrize("corrections", [1, 4])
def test_where_noise_is_only_added_it_is_the_papers_algorithm(corrections):
    schedule = VarianceExplodingSchedule(0.01, 20.0)
    grid = f64([1.0, 0.7, 0.5, 0.3, 0.0])
    sigmas = schedule.sigma(grid[:-1]).tolist()
    counts = [1, corrections, corrections, corrections - 1]
    z, sampler = draws(20), AnnealedLangevinSampler(corrections, step_size=0.3)
    x = 20 * draws(1)[0]
    found = sample(sampler, mixture(schedule), x, grid, noise=in_turn(z))
    torch.testing.assert_close(found, algorithm(mixture(schedule), x, sigmas, counts, 0.3, z), rtol=1e-9, atol=1e-9)
    assert sampler.network_calls(grid) == sum(counts) + 1


@pytest.mark.parametrize("schedule", [VPSchedule(), SubVPSchedule(), FlowSchedule()], ids=str)
def test_in_x_over_alpha_it_is_the_same_on_every_schedule(schedule):
    other, grid, z = VarianceExplodingSchedule(0.01, 500.0), f64([0.99, 0.8, 0.5, 0.2, 0.0]), draws(30)
    times = other.time_of(schedule.log_snr(grid))
    times[-1] = 0
    sampler, x = AnnealedLangevinSampler(5, 0.4), draws(1)[0]
    found = sample(sampler, mixture(schedule), x, grid, noise=in_turn(z))
    alpha = schedule.alpha(grid[0])
    torch.testing.assert_close(
        found, sample(sampler, mixture(other), x / alpha, times, noise=in_turn(z)), rtol=1e-8, atol=1e-8
    )


def test_from_where_no_signal_is_left_the_first_move_is_ddims():
    oracle, x, z = mixture(FlowSchedule()), draws(1)[0], draws(2)
    found = AnnealedLangevinSampler(1, 0.4).step(oracle, x, f64(1.0), f64(0.75), None, noise=in_turn(z)).x
    estimate = oracle(x, f64(1.0))
    walked = x - 0.2 * x + math.sqrt(0.4) * z[0]
    torch.testing.assert_close(found, 0.25 * estimate + 0.75 * walked, rtol=1e-12, atol=1e-12)


def spread(sampler, schedule, n):
    """Mean and standard deviation of the end of a run for N(1, 0.5^2), exactly: it is affine there."""
    oracle = GaussianMixtureOracle(f64([[1.0]]), f64([0.5]), f64([1.0]), schedule)
    grid, places = grids.uniform(n), {}
    x = torch.zeros(2 + sampler.network_calls(grid), 1, dtype=torch.float64)
    x[1] = float(schedule.sigma(grid[0]))

    def noise(like, t, s, draw=0):
        drawn = torch.zeros_like(like)
        drawn[places.setdefault((float(t), draw), len(places) + 2)] = 1
        return drawn

    end = sample(sampler, oracle, x, grid, noise=noise)[:, 0]
    return float(end[0]), float((end[1:] - end[0]).square().sum().sqrt())


@pytest.mark.parametrize("schedule", [VPSchedule(), FlowSchedule(), VarianceExplodingSchedule()], ids=str)
def test_more_levels_and_more_steps_bring_the_distribution_back(schedule):
    found = [spread(AnnealedLangevinSampler(c, 0.5), schedule, n) for n, c in ((20, 5), (80, 5), (80, 20))]
    errors = [math.hypot(mean - 1, std - 0.5) for mean, std in found]
    assert errors[0] > 1.3 * errors[1] > 1.3**2 * errors[2]
    assert errors[2] < 0.03
