"""The way from data to noise: DDIM and Euler over rising grids."""

import math

import pytest
import torch

from unnoise.denoisers.base import Denoiser
from unnoise.denoisers.oracle import GaussianMixtureOracle
from unnoise.errors import BadOption, IncompatibleParts
from unnoise.process.cosine import CosineSchedule
from unnoise.process.flow import FlowSchedule
from unnoise.process.linear import LinearSchedule
from unnoise.process.variance_exploding import VarianceExplodingSchedule
from unnoise.randomness import NoiseSource
from unnoise.samplers.base import sample, samplers, trajectory
from unnoise.samplers.ddim import DDIMSampler
from unnoise.samplers.euler import EulerSampler

every_schedule = pytest.mark.parametrize(
    "schedule",
    [LinearSchedule(), CosineSchedule(), FlowSchedule(), VarianceExplodingSchedule(0.01, 20.0)],
    ids=lambda s: type(s).__name__,
)


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


def mixture(schedule):
    return GaussianMixtureOracle(
        f64([[1.0, 0.3], [-0.8, 0.6], [0.1, -1.1]]), f64([0.5, 0.7, 0.4]), f64([0.5, 0.2, 0.3]), schedule
    )


def rising(n, low, high):
    # Even in the square of time: the log-SNR moves fast near clean data.
    return low + (high - low) * torch.linspace(0, 1, n + 1, dtype=torch.float64) ** 2


def order(misses):
    return [math.log2(a / b) for a, b in zip(misses[:-1], misses[1:], strict=True)]


@every_schedule
@pytest.mark.parametrize("low", [0.0, 0.02])
def test_the_way_up_and_back_misses_by_an_error_of_first_order(schedule, low):
    oracle = mixture(schedule)
    x = oracle.sample(40, seed=2)
    misses = []
    for n in (100, 200, 400):
        grid = rising(n, low, 0.9)
        there = sample(DDIMSampler(), oracle, x, grid)
        misses.append(float((sample(DDIMSampler(), oracle, there, grid.flip(0)) - x).norm()))
    assert misses[-1] < 0.05 * float(x.norm())
    assert order(misses) == [pytest.approx(1, abs=0.25)] * 2


@every_schedule
@pytest.mark.parametrize("low", [0.0, 0.1])
def test_normal_data_is_led_to_where_the_closed_form_leads(schedule, low):
    oracle = GaussianMixtureOracle(f64([[1.0]]), f64([0.5]), f64([1.0]), schedule)
    (alpha, sigma), (alpha_low, sigma_low) = ((schedule.alpha(f64(t)), schedule.sigma(f64(t))) for t in (0.9, low))
    spread, spread_low = ((0.25 * a**2 + s**2).sqrt() for a, s in ((alpha, sigma), (alpha_low, sigma_low)))
    x = torch.linspace(-1, 3, 9, dtype=torch.float64)[:, None]
    exact = alpha + spread / spread_low * (x - alpha_low)
    misses = [float((sample(EulerSampler(), oracle, x, rising(n, low, 0.9)) - exact).norm()) for n in (200, 400, 800)]
    assert misses[-1] < 0.02 * float(exact.norm())
    assert order(misses) == [pytest.approx(1, abs=0.2)] * 2


def test_a_step_up_carries_over_the_noise_that_is_found():
    schedule, oracle = LinearSchedule(), mixture(LinearSchedule())
    x = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    t, s = f64(0.2), f64(0.4)
    denoised = oracle(x, t)
    eps = (x - schedule.alpha(t) * denoised) / schedule.sigma(t)
    found = DDIMSampler().step(oracle, x, t, s, None)
    torch.testing.assert_close(found.x, schedule.alpha(s) * denoised + schedule.sigma(s) * eps)
    torch.testing.assert_close(found.denoised, denoised)


def test_a_step_up_from_clean_data_asks_at_its_far_end():
    class Asked(Denoiser):
        schedule = LinearSchedule()

        def forward(self, x_t, t, cond=None):
            self.asked = x_t, float(t), cond
            return 0.25 * x_t

    denoiser, x, s = Asked(), torch.ones(2, 2, dtype=torch.float64), f64(0.3)
    alpha, sigma = (float(f(s)) for f in (denoiser.schedule.alpha, denoiser.schedule.sigma))
    found = DDIMSampler().step(denoiser, x, f64(0.0), s, None, cond={"label": 1})
    torch.testing.assert_close(denoiser.asked[0], alpha * x)
    assert denoiser.asked[1:] == (0.3, {"label": 1})
    eps = (alpha - alpha * 0.25 * alpha) / sigma
    torch.testing.assert_close(found.x, alpha * x + sigma * eps)


@pytest.mark.parametrize("sampler", [DDIMSampler(), EulerSampler()], ids=str)
def test_the_way_up_to_pure_noise_is_finite_and_makes_the_declared_calls(sampler):
    oracle, grid = mixture(FlowSchedule()), torch.linspace(0, 1, 6, dtype=torch.float64)
    steps = list(trajectory(sampler, oracle, oracle.sample(4), grid))
    assert len(steps) == sampler.network_calls(grid) == 5
    assert all(bool(step.x.isfinite().all()) for step in steps)


def test_fresh_noise_has_no_way_back():
    oracle = mixture(LinearSchedule())
    with pytest.raises(IncompatibleParts, match=r"eta 0\.5 draws noise"):
        sample(DDIMSampler(0.5), oracle, oracle.sample(3), rising(4, 0.0, 0.9), noise=NoiseSource(0, range(3)))


@pytest.mark.parametrize("name", [n for n in samplers if n not in ("ddim", "euler") and not samplers[n].inverts])
def test_other_samplers_refuse_rising_times(name):
    oracle = mixture(LinearSchedule())
    with pytest.raises(BadOption, match="fall strictly"):
        sample(samplers.build(name), oracle, oracle.sample(3), rising(4, 0.1, 0.9), noise=NoiseSource(0, range(3)))
