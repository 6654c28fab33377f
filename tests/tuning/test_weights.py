"""Weights of steps that are fitted, the descent that does it, and the ways that it is done along."""

import math

import pytest
import torch

from unnoise.denoisers.oracle import GaussianMixtureOracle
from unnoise.process.cosine import CosineSchedule
from unnoise.process.linear import LinearSchedule
from unnoise.randomness import NoiseSource
from unnoise.samplers.adaptive import AdaptiveSampler
from unnoise.samplers.arc import ArcSampler
from unnoise.samplers.base import sample, samplers
from unnoise.samplers.coordinates import arc
from unnoise.samplers.euler import EulerSampler
from unnoise.samplers.grids import make_grid
from unnoise.tuning.descent import descend
from unnoise.tuning.path import follow
from unnoise.tuning.problem import converged
from unnoise.tuning.times import improve
from unnoise.tuning.weights import STAGES, fit_weights


def problem(n, schedule=None, tolerance=1e-4):
    schedule = LinearSchedule() if schedule is None else schedule
    means = torch.tensor([[0.7, 0.3], [-0.6, 0.5], [0.1, -0.8], [-0.3, -0.2]])
    stds, weights = torch.tensor([0.1, 0.2, 0.15, 0.05]), torch.tensor([0.3, 0.2, 0.3, 0.2])
    oracle = GaussianMixtureOracle(means, stds, weights, schedule)
    sigma = float(schedule.sigma(torch.ones((), dtype=torch.float64)))
    return converged(oracle, sigma * NoiseSource(0, range(n)).start((2,), torch.float64), tolerance=tolerance)


def test_the_descent_ends_where_the_squares_are_least():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(40, 3, 5, dtype=torch.float64, generator=generator), torch.randn(40, 3, dtype=torch.float64)
    found = descend(lambda p: a @ p - b, torch.zeros(5, dtype=torch.float64), rounds=30)
    exact = torch.linalg.lstsq(a.flatten(0, 1), b.flatten()).solution
    # The last rounds gain less than four parts in a thousand of the loss, which is flat at its minimum.
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-2)


def test_with_a_cap_few_samples_that_are_far_off_do_not_lead():
    wanted = torch.ones(100, 1, dtype=torch.float64)
    wanted[:10] = 50.0

    def residual(p):
        return p.expand(100, 1) - wanted

    plain = descend(residual, torch.zeros(1, dtype=torch.float64), rounds=100)
    capped = descend(residual, torch.zeros(1, dtype=torch.float64), rounds=100, cap=0.1)
    assert float(plain) == pytest.approx(5.9, abs=0.1)  # the mean
    assert float(capped) == pytest.approx(1.0, abs=0.02)


def test_a_place_without_a_run_is_never_taken():
    found = descend(lambda p: None if float(p) > 2 else p.expand(4, 1) - 3, torch.zeros(1, dtype=torch.float64), 60)
    assert 1.9 < float(found) <= 2


@pytest.mark.parametrize("schedule", [LinearSchedule(), CosineSchedule()], ids=["linear", "cosine"])
def test_the_way_is_that_of_the_exact_flow_between_the_known_places_too(schedule):
    whole = problem(20, schedule)
    path = follow(whole)
    for t in (0.97, 0.6, 0.31, 0.1):
        grid = torch.tensor([1.0, t], dtype=torch.float64)
        exact = sample(AdaptiveSampler(rtol=1e-9, atol=1e-9), whole.denoiser, whole.start, grid)
        found = path.at(t) * arc(schedule, t, whole.denoiser.sigma_data).scale
        # What 128 steps of third order leave of data of size 1; a straight line between two places would miss by 1e-3.
        torch.testing.assert_close(found, exact, rtol=0, atol=1e-4)


def test_fitted_weights_are_better_than_fitted_times_on_noises_that_they_have_not_seen():
    whole = problem(1200)
    fit, held_out = whole.part(0, 600), whole.part(600, 1200)
    grid = make_grid("angle", 5, LinearSchedule(), sigma_data=whole.denoiser.sigma_data)
    timed, times, _ = improve(fit, ArcSampler(), grid, rounds=20)
    stages = list(fit_weights(fit, ArcSampler(), grid))
    assert len(stages) == len(STAGES)
    fitted, moved = min(stages, key=lambda each: fit.distance(*each))
    assert held_out.distance(fitted, moved) < 0.8 * held_out.distance(timed, times)
    assert [len(row) for row in fitted.weights] == [2, 3, 4, 5, 5]
    assert samplers.build(samplers.describe(fitted)) == fitted


def test_a_stage_begins_where_the_one_before_has_ended():
    whole = problem(50)
    grid = make_grid("angle", 4, LinearSchedule(), sigma_data=whole.denoiser.sigma_data)
    given = ArcSampler(weights=((0.1, 0.2), (0.3,), (0.0, 0.1, 0.2), (0.0, 0.0)))
    same, times, left = improve(whole, given, grid, rounds=0, slopes=3)
    assert same.weights == ((0.1, 0.2), (0.3, 0.0, 0.0), (0.0, 0.1, 0.2, 0.0), (0.0, 0.0, 0.0, 0.0))
    assert left == pytest.approx(whole.distance(given, grid), rel=1e-6)
    torch.testing.assert_close(times, grid, rtol=1e-6, atol=2e-7)


def test_a_run_that_is_lost_on_the_way_is_told():
    whole = problem(4)
    grid = make_grid("angle", 3, LinearSchedule(), sigma_data=whole.denoiser.sigma_data)
    astray = ArcSampler(weights=((1e308,), (1e308,), (1e308,)))
    assert improve(whole, astray, grid, path=follow(whole))[2] == math.inf
    assert improve(whole, EulerSampler(), grid, path=follow(whole))[2] < whole.distance(EulerSampler(), grid) * 1.5
