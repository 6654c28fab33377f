"""Samplers against single steps that are known, against each other, and against the tables of the source documents."""

import math

import pytest
import torch
from torch import nn

from unnoise.denoisers.base import Denoiser
from unnoise.denoisers.learned_variance import LearnedVarianceDenoiser
from unnoise.denoisers.oracle import GaussianMixtureOracle
from unnoise.denoisers.x0 import X0Denoiser
from unnoise.errors import IncompatibleParts
from unnoise.process.chain import MarkovChain
from unnoise.process.cosine import CosineSchedule
from unnoise.process.flow import FlowSchedule
from unnoise.process.linear import LinearSchedule
from unnoise.process.variance_exploding import VarianceExplodingSchedule
from unnoise.randomness import NoiseSource
from unnoise.samplers import grids
from unnoise.samplers.ancestral import AncestralSampler
from unnoise.samplers.base import sample
from unnoise.samplers.ddim import DDIMSampler
from unnoise.samplers.ddpm import DDPMSampler
from unnoise.samplers.dpmpp_2m import DPMSolverPPSampler
from unnoise.samplers.euler import EulerSampler
from unnoise.samplers.heun import HeunSampler


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


class Fixed(Denoiser):
    """Gives one estimate, and one variance fraction."""

    def __init__(self, schedule, estimate, fraction=None):
        super().__init__()
        self.schedule, self.estimate, self.fraction = schedule, estimate, fraction

    def forward(self, x_t, t, cond=None):
        return self.estimate

    def with_variance(self, x_t, t, cond=None):
        return self.estimate, self.fraction


def unit(like, t, s, draw=0):
    return torch.ones_like(like)


def none(like, t, s, draw=0):
    return torch.zeros_like(like)


def step(sampler, denoiser, x, level, noise):
    t, s = f64((level + 1) / 1000), f64(level / 1000)
    return sampler.step(denoiser, x, t, s, None, noise=noise).x


@pytest.mark.parametrize("level", [1, 2, 500, 998, 999])
@pytest.mark.parametrize("schedule", [LinearSchedule(), CosineSchedule(), LinearSchedule().zero_terminal_snr()])
def test_one_level_of_ddpm_is_the_posterior_of_the_chain(schedule, level):
    chain = MarkovChain(schedule)
    x, x_0 = torch.randn(2, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mean, log_variance = chain.posterior(x_0, x, torch.tensor(level))
    denoiser = Fixed(schedule, x_0, torch.full_like(x, 0.25))
    beta, posterior = float(chain.betas[level]), float(chain.posterior_variances[level])
    assert math.log(posterior) == pytest.approx(float(log_variance), rel=1e-9)
    for variance, expected in (("beta", beta), ("posterior", posterior), ("learned", beta**0.25 * posterior**0.75)):
        sampler = DDPMSampler(variance)
        # The jump takes beta from a difference of numbers near 1: 1e-16 of 1e-4 at level 1.
        torch.testing.assert_close(step(sampler, denoiser, x, level, none), mean, rtol=1e-9, atol=1e-10)
        drawn = step(sampler, denoiser, x, level, unit) - step(sampler, denoiser, x, level, none)
        torch.testing.assert_close(drawn, torch.full_like(x, expected**0.5), rtol=1e-8, atol=0)


def test_the_ends_of_the_learned_variance_are_posterior_and_beta():
    schedule = LinearSchedule()
    x, x_0 = torch.randn(2, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for fraction, variance in ((0.0, "posterior"), (1.0, "beta")):
        denoiser = Fixed(schedule, x_0, torch.full_like(x, fraction))
        for t, s in ((1.0, 0.999), (0.5, 0.3), (0.002, 0.001), (0.001, 0.0)):
            both = DDPMSampler("learned"), DDPMSampler(variance)
            found, expected = (sampler.step(denoiser, x, f64(t), f64(s), None, noise=unit).x for sampler in both)
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_a_learned_fraction_is_taken_component_by_component():
    schedule = LinearSchedule()
    x = torch.zeros(2, 2, dtype=torch.float64)
    denoiser = Fixed(schedule, x, f64([[0.0, 1.0], [0.5, 0.25]]))
    chain = MarkovChain(schedule)
    beta, posterior = float(chain.betas[300]), float(chain.posterior_variances[300])
    expected = [[posterior**0.5, beta**0.5], [(beta * posterior) ** 0.25, beta**0.125 * posterior**0.375]]
    assert step(DDPMSampler("learned"), denoiser, x, 300, unit).tolist() == [
        pytest.approx(row, rel=1e-9) for row in expected
    ]


def test_a_learned_variance_must_have_been_learned():
    with pytest.raises(IncompatibleParts, match="learned no variance"):
        step(DDPMSampler("learned"), Fixed(LinearSchedule(), torch.zeros(1, 1)), torch.zeros(1, 1), 5, unit)


class Doubled(nn.Module):
    """x_0 = 0.5, and an output of the variance that means the fraction 0.75."""

    def forward(self, x, noise_level, cond=None):
        return torch.cat([torch.full_like(x, 0.5), torch.full_like(x, 0.5)], 1)


def test_the_fraction_of_a_network_reaches_the_sampler():
    schedule = LinearSchedule()
    denoiser = LearnedVarianceDenoiser(X0Denoiser(Doubled(), schedule))
    chain, x = MarkovChain(schedule), torch.zeros(1, 1, dtype=torch.float64)
    drawn = step(DDPMSampler("learned"), denoiser, x, 300, unit) - step(DDPMSampler("learned"), denoiser, x, 300, none)
    expected = 0.5 * (0.75 * float(chain.betas[300].log()) + 0.25 * float(chain.posterior_variances[300].log()))
    assert float(drawn) == pytest.approx(math.exp(expected), rel=1e-9)


def mixture(schedule):
    return GaussianMixtureOracle(f64([[1.0, 0.3], [-0.8, 0.6]]), f64([0.5, 0.3]), f64([0.6, 0.4]), schedule)


@pytest.mark.parametrize("schedule", [LinearSchedule(), CosineSchedule(), FlowSchedule(), VarianceExplodingSchedule()])
@pytest.mark.parametrize("n", [5, 50])
def test_ddpm_ddim_with_eta_1_and_ancestral_are_one_sampler(schedule, n):
    oracle, noise = mixture(schedule), NoiseSource(4, range(6))
    x = noise.start((2,), torch.float64) * float(schedule.sigma(f64(1.0)))
    three = DDPMSampler(), DDIMSampler(1.0), AncestralSampler()
    first, *others = (sample(sampler, oracle, x, grids.uniform(n), noise=noise) for sampler in three)
    for other in others:
        torch.testing.assert_close(other, first, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("schedule", [LinearSchedule(), FlowSchedule(), VarianceExplodingSchedule()])
def test_without_noise_ddim_and_ancestral_and_first_order_dpm_are_eulers_rule(schedule):
    oracle = mixture(schedule)
    x = NoiseSource(4, range(6)).start((2,), torch.float64) * float(schedule.sigma(f64(1.0)))
    expected = sample(EulerSampler(), oracle, x, grids.uniform(9))
    for sampler in (DDIMSampler(), AncestralSampler(0.0), DPMSolverPPSampler(order=1)):
        torch.testing.assert_close(sample(sampler, oracle, x, grids.uniform(9)), expected, rtol=1e-11, atol=1e-11)


def test_two_samplers_of_second_order_agree_better_with_each_other_than_with_the_first():
    oracle, grid = mixture(CosineSchedule()), grids.uniform(100)
    x = NoiseSource(4, range(6)).start((2,), torch.float64)
    heun, multistep, euler = (sample(s, oracle, x, grid) for s in (HeunSampler(), DPMSolverPPSampler(), EulerSampler()))
    assert float((heun - multistep).norm()) < 0.2 * float((heun - euler).norm())


# N(1, 0.5^2), the table of the source documents


def moments(sampler, schedule, grid, prior=(0.0, 1.0)):
    """Mean and standard deviation of the end of a run from N(prior), exactly: all samplers are affine for Gaussian data."""
    oracle = GaussianMixtureOracle(f64([[1.0]]), f64([0.5]), f64([1.0]), schedule)
    n = len(grid) - 1
    x = torch.full((n + 2, 1), prior[0], dtype=torch.float64)
    x[1] += prior[1]

    def noise(like, t, s, draw=0):
        drawn = torch.zeros_like(like)
        drawn[2 + int((grid[:-1] == t).nonzero())] = 1
        return drawn

    end = sample(sampler, oracle, x, grid, noise=noise)[:, 0]
    return float(end[0]), float((end[1:] - end[0]).square().sum().sqrt())


def test_ddpm_with_beta_and_with_the_posteriors_variance_has_the_spreads_of_the_table():
    grid = grids.discrete(1000, 1000)
    assert moments(DDPMSampler("beta"), LinearSchedule(), grid)[1] == pytest.approx(0.50075, abs=5e-6)
    assert moments(DDPMSampler("posterior"), LinearSchedule(), grid)[1] == pytest.approx(0.49611, abs=5e-6)


def exact_prior(schedule):
    alpha, sigma = float(schedule.alpha(f64(1.0))), float(schedule.sigma(f64(1.0)))
    return alpha, (0.25 * alpha**2 + sigma**2) ** 0.5


@pytest.mark.parametrize("sampler", [HeunSampler(), DPMSolverPPSampler(), DPMSolverPPSampler(sde=True)], ids=str)
@pytest.mark.parametrize("name", ["uniform", "log_snr", "karras", "angle"])
def test_two_hundred_calls_bring_a_normal_distribution_back(sampler, name):
    schedule = LinearSchedule()
    grid = grids.make_grid(name, 200 // sampler.evaluations, schedule)
    assert sampler.network_calls(grid) <= 200
    mean, std = moments(sampler, schedule, grid)
    # 0.0032 of it is the start: N(0, 1) instead of the noised data.
    assert math.hypot(mean - 1, std - 0.5) <= 0.004
    mean, std = moments(sampler, schedule, grid, exact_prior(schedule))
    # Equal times spend few steps at low noise, where this schedule moves fast.
    assert math.hypot(mean - 1, std - 0.5) <= (0.003 if name == "uniform" else 0.001)


@pytest.mark.parametrize(("grid", "allowed"), [("trailing", 0.0081), ("angle", 0.0060)])
def test_two_hundred_steps_of_ddim_leave_the_error_of_first_order(grid, allowed):
    mean, std = moments(DDIMSampler(), LinearSchedule(), grids.make_grid(grid, 200, LinearSchedule()))
    assert math.hypot(mean - 1, std - 0.5) <= allowed


def test_ddim_over_all_levels_keeps_the_mean_that_the_start_leaves_it():
    """From N(0, 1), which is not quite the noised data (alpha-bar 4e-5), the exact flow ends at 0.9968."""
    schedule = LinearSchedule()
    mean, std = moments(DDIMSampler(), schedule, grids.discrete(1000, 1000))
    alpha, spread = exact_prior(schedule)
    assert mean == pytest.approx(1 - alpha * 0.5 / spread, abs=2e-4)
    assert math.hypot(mean - 1, std - 0.5) <= 0.004
    mean, std = moments(DDIMSampler(), schedule, grids.discrete(1000, 1000), exact_prior(schedule))
    assert mean == pytest.approx(1, abs=1e-4)
    assert std == pytest.approx(0.5, abs=2e-3)
