"""Samplers that go back up: restart, which repeats a part of the run, and consistency sampling, which redraws all noise."""

import math

import numpy as np
import pytest
import torch

from unnoise.denoisers.base import Denoiser
from unnoise.denoisers.oracle import GaussianMixtureOracle
from unnoise.errors import BadOption
from unnoise.process.cosine import CosineSchedule
from unnoise.process.flow import FlowSchedule
from unnoise.process.linear import LinearSchedule
from unnoise.process.variance_exploding import VarianceExplodingSchedule
from unnoise.randomness import NoiseSource
from unnoise.samplers.base import sample, trajectory
from unnoise.samplers.consistency import ConsistencySampler
from unnoise.samplers.heun import HeunSampler
from unnoise.samplers.restart import RestartSampler


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


class Counting(Denoiser):
    """0.3 x, and the times it was asked at."""

    def __init__(self, schedule):
        super().__init__()
        self.schedule, self.times = schedule, []

    def forward(self, x_t, t, cond=None):
        self.times.append(float(t))
        return 0.3 * x_t


def asked(intervals, times, noise=None):
    denoiser, grid = Counting(FlowSchedule()), f64(times)
    sampler = RestartSampler(intervals)
    sample(sampler, denoiser, torch.ones(1, 1), grid, noise=noise or NoiseSource(0, [0]))
    assert sampler.network_calls(grid) == len(denoiser.times)
    return denoiser.times


def test_restart_runs_again_through_the_times_between():
    times = [1.0, 0.8, 0.6, 0.4, 0.2, 0.0]
    down = [1.0, 0.8, 0.8, 0.6, 0.6, 0.4]
    # Each step asks at both its ends; the interval is left by the step from 0.6 to 0.4.
    once = [0.7, 0.6, 0.6, 0.4]
    rest = [0.4, 0.2, 0.2]
    assert asked([(0.45, 0.7, 0)], times) == down + rest
    assert asked([(0.45, 0.7, 1)], times) == down + once + rest
    assert asked([(0.45, 0.7, 3)], times) == down + 3 * once + rest
    # Left exactly at its low end; none of the grid's times lie inside; two intervals left by one step.
    assert asked([(0.4, 0.7, 1)], times) == down + once + rest
    assert asked([(0.45, 0.55, 1)], times) == [*down, 0.55, 0.4, *rest]
    assert asked([(0.45, 0.55, 1), (0.5, 0.7, 1)], times) == [*down, 0.55, 0.4, *once, *rest]
    # No higher than the run began, and not from clean data.
    assert asked([(0.45, 0.9, 1)], times[2:]) == [0.6, 0.4, 0.6, 0.4, *rest]
    assert asked([(0.1, 0.7, 1)], times) == down + rest


def test_without_intervals_restart_is_heuns_rule():
    oracle = GaussianMixtureOracle(f64([[1.0], [-1.0]]), f64([0.3, 0.2]), f64([0.5, 0.5]), CosineSchedule())
    x, grid = torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None], f64([1.0, 0.6, 0.2, 0.0])
    assert not RestartSampler(()).stochastic
    assert torch.equal(sample(RestartSampler(()), oracle, x, grid), sample(HeunSampler(), oracle, x, grid))


def test_restart_is_the_loop_of_xu_et_al():
    """On the noise line with x / alpha at the level k = sigma / alpha, as the paper has it."""
    schedule, source = LinearSchedule(), NoiseSource(2, range(5))
    times = [0.95, 0.7, 0.5, 0.3, 0.2, 0.0]
    oracle = GaussianMixtureOracle(f64([[1.0], [-1.0]]), f64([0.3, 0.2]), f64([0.6, 0.4]), schedule)

    def level(t):
        return float(schedule.sigma(f64(t)) / schedule.alpha(f64(t)))

    def denoise(y, t):
        return oracle(torch.from_numpy(y) * schedule.alpha(f64(t)), f64(t)).numpy()

    def heun(y, t, s):
        d = (y - denoise(y, t)) / level(t)
        ahead = y + (level(s) - level(t)) * d
        if s == 0:
            return ahead
        return y + (level(s) - level(t)) * (d + (ahead - denoise(ahead, s)) / level(s)) / 2

    x = np.random.default_rng(3).standard_normal((5, 1))
    y = x / float(schedule.alpha(f64(0.95)))
    for t, s in zip(times[:3], times[1:4], strict=True):
        y = heun(y, t, s)
    for k in range(2):
        z = source(torch.from_numpy(y), 0.5, 0.3, k).numpy()
        y = y + math.sqrt(level(0.6) ** 2 - level(0.3) ** 2) * z
        y = heun(heun(y, 0.6, 0.5), 0.5, 0.3)
    y = heun(heun(y, 0.3, 0.2), 0.2, 0.0)
    sampler = RestartSampler([(0.3, 0.6, 2)], line="noise")
    found = sample(sampler, oracle, torch.from_numpy(x), f64(times), noise=source)
    np.testing.assert_allclose(found.numpy(), y, atol=1e-10)


@pytest.mark.parametrize("interval", [(0.0, 0.5, 1), (0.5, 0.5, 1), (0.5, 1.1, 1), (0.2, 0.5, -1)])
def test_intervals_that_make_no_sense_are_refused(interval):
    with pytest.raises(BadOption, match="intervals: expected 0 < low < high"):
        RestartSampler([interval])


class GaussianConsistency(Denoiser):
    """Where the ODE leads from x_t for data N(mean, std^2): the consistency function, in closed form."""

    def __init__(self, schedule, mean, std):
        super().__init__()
        self.schedule, self.mean, self.std = schedule, mean, std

    def forward(self, x_t, t, cond=None):
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        spread = (alpha**2 * self.std**2 + sigma**2).sqrt()
        return self.mean + self.std * (x_t - alpha * self.mean) / spread


@pytest.mark.parametrize(
    "schedule",
    [LinearSchedule(), CosineSchedule(), FlowSchedule(), VarianceExplodingSchedule()],
    ids=lambda s: type(s).__name__,
)
@pytest.mark.parametrize("n", [1, 4])
def test_every_step_of_a_consistency_model_has_the_exact_distribution(schedule, n):
    mean, std = 0.7, 0.4
    grid = torch.linspace(1, 0, n + 1, dtype=torch.float64)
    exact = [
        (float(schedule.alpha(t)) * mean, float(((schedule.alpha(t) * std) ** 2 + schedule.sigma(t) ** 2).sqrt()))
        for t in grid
    ]
    # A run with no noise, one that starts one standard deviation higher, and one for unit noise in each step.
    x = torch.full((n + 2, 1), exact[0][0], dtype=torch.float64)
    x[1] += exact[0][1]

    def noise(like, t, s, draw=0):
        unit = torch.zeros_like(like)
        unit[2 + int((grid[:-1] == t).nonzero())] = 1
        return unit

    steps = list(trajectory(ConsistencySampler(), GaussianConsistency(schedule, mean, std), x, grid, noise=noise))
    for stepped, (mean_s, std_s) in zip(steps, exact[1:], strict=True):
        assert float(stepped.x[0]) == pytest.approx(mean_s, abs=1e-9)
        assert float((stepped.x[1:] - stepped.x[0]).norm()) == pytest.approx(std_s, abs=1e-9)
        assert float((stepped.denoised[1:] - stepped.denoised[0]).norm()) == pytest.approx(std, abs=1e-9)


def test_with_the_mean_of_the_data_consistency_sampling_is_too_narrow():
    """Each jump to the mean loses the spread around it; the docstring warns of it."""
    oracle = GaussianMixtureOracle(f64([[0.0]]), f64([0.5]), f64([1.0]), FlowSchedule())
    noise = NoiseSource(0, range(2000))
    found = sample(ConsistencySampler(), oracle, noise.start((1,), torch.float64), f64([1.0, 0.5, 0.0]), noise=noise)
    # One jump from t = 0.5 where x has variance 0.25: D = 0.25 / (0.25 + 1) x / 0.5.
    assert float(found.std()) == pytest.approx(0.2, abs=0.02)
