"""Euler and Maruyama's rule against the SDE it discretises, at its ends, and in the mean."""

import math

import numpy as np
import pytest
import torch

from unnoise.denoisers.dynamics import ReverseSDE
from unnoise.denoisers.oracle import GaussianMixtureOracle
from unnoise.errors import BadOption
from unnoise.process.cosine import CosineSchedule
from unnoise.process.flow import FlowSchedule
from unnoise.process.variance_exploding import VarianceExplodingSchedule
from unnoise.process.vp import VPSchedule
from unnoise.samplers import grids
from unnoise.samplers.base import sample
from unnoise.samplers.euler_maruyama import EulerMaruyamaSampler


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


def unit(like, t, s, draw=0):
    return torch.ones_like(like)


def zero(like, t, s, draw=0):
    return torch.zeros_like(like)


def mixture(schedule):
    return GaussianMixtureOracle(f64([[1.0, 0.3], [-0.8, 0.6]]), f64([0.5, 0.3]), f64([0.6, 0.4]), schedule)


def points(n=5):
    return torch.randn(n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("stochasticity", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("schedule", [VPSchedule(), FlowSchedule(), VarianceExplodingSchedule()], ids=str)
def test_a_step_is_the_drift_times_its_length_and_the_noise_that_goes_with_it(schedule, stochasticity):
    oracle, t, s = mixture(schedule), f64(0.6), f64(0.59)
    sde, sampler, x = ReverseSDE(oracle, stochasticity), EulerMaruyamaSampler(stochasticity), points()
    still = sampler.step(oracle, x, t, s, None, noise=zero)
    torch.testing.assert_close(still.x, x - sde.drift(x, t) * 0.01, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(still.denoised, oracle(x, t))
    drawn = sampler.step(oracle, x, t, s, None, noise=unit).x - still.x
    torch.testing.assert_close(drawn, torch.full_like(x, float(sde.diffusion(t)) * 0.1), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("stochasticity", [0.0, 0.4, 1.0])
def test_a_step_that_would_overshoot_is_the_exact_one_for_an_estimate_that_stands_still(stochasticity):
    """Without signal, almost without, down to clean data, and all the way in one step."""
    sampler, x = EulerMaruyamaSampler(stochasticity), points()
    for schedule in (FlowSchedule(), CosineSchedule()):
        oracle = mixture(schedule)
        # Without noise the drift is tame, and steps where a little signal is left do not overshoot.
        for t, s in ((1.0, 0.9), (1.0, 0.0), (0.99, 0.5), (0.01, 0.0)):
            if stochasticity == 0 and s and schedule.alpha(f64(t)) > 0:
                continue
            (a_t, sigma_t), (a_s, sigma_s) = [
                [float(f(f64(time))) for f in (schedule.alpha, schedule.sigma)] for time in (t, s)
            ]
            # The noise of before is forgotten with the power lambda^2 of the noise-to-signal ratio.
            kept = (sigma_s * a_t / (a_s * sigma_t)) ** stochasticity**2
            estimate = oracle(x, f64(t))
            expected = a_s * estimate + sigma_s * kept * (x - a_t * estimate) / sigma_t
            found = [sampler.step(oracle, x, f64(t), f64(s), None, noise=noise).x for noise in (zero, unit)]
            torch.testing.assert_close(found[0], expected, rtol=1e-9, atol=1e-9)
            fresh = sigma_s * math.sqrt(1 - kept**2)
            torch.testing.assert_close(found[1] - found[0], torch.full_like(x, fresh), rtol=1e-9, atol=1e-9)


def moments(sampler, schedule, n):
    """Mean and standard deviation of the end of a run from the noised data of N(1, 0.5^2), exactly."""
    oracle = GaussianMixtureOracle(f64([[1.0]]), f64([0.5]), f64([1.0]), schedule)
    grid = grids.uniform(n)
    alpha, sigma = float(schedule.alpha(f64(1.0))), float(schedule.sigma(f64(1.0)))
    x = torch.full((n + 2, 1), alpha, dtype=torch.float64)
    x[1] += math.hypot(0.5 * alpha, sigma)

    def noise(like, t, s, draw=0):
        drawn = torch.zeros_like(like)
        drawn[2 + int((grid[:-1] == t).nonzero())] = 1
        return drawn

    end = sample(sampler, oracle, x, grid, noise=noise)[:, 0]
    return float(end[0]), float((end[1:] - end[0]).square().sum().sqrt())


@pytest.mark.parametrize("stochasticity", [0.0, 0.5, 1.0])
def test_twice_the_steps_have_half_the_error_of_mean_and_spread(stochasticity):
    counts = (100, 200, 400)
    errors = []
    for n in counts:
        mean, std = moments(EulerMaruyamaSampler(stochasticity), VPSchedule(), n)
        errors.append(math.hypot(mean - 1, std - 0.5))
    assert -np.polyfit(np.log(counts), np.log(errors), 1)[0] == pytest.approx(1, abs=0.3)
    assert errors[-1] < 0.003


def test_without_stochasticity_it_draws_nothing():
    assert not EulerMaruyamaSampler(0.0).stochastic
    assert EulerMaruyamaSampler(0.1).stochastic
    assert bool(sample(EulerMaruyamaSampler(0.0), mixture(VPSchedule()), points(), grids.uniform(3)).isfinite().all())
    with pytest.raises(BadOption, match="stochasticity"):
        EulerMaruyamaSampler(1.5)
