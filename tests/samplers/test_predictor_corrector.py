"""The corrections against Langevin's rule, what they leave, and what they mend."""

import math

import pytest
import torch

from unnoise.denoisers.oracle import GaussianMixtureOracle
from unnoise.process.flow import FlowSchedule
from unnoise.process.variance_exploding import VarianceExplodingSchedule
from unnoise.process.vp import VPSchedule
from unnoise.randomness import NoiseSource
from unnoise.samplers import grids
from unnoise.samplers.ancestral import AncestralSampler
from unnoise.samplers.base import sample
from unnoise.samplers.ddim import DDIMSampler
from unnoise.samplers.euler_maruyama import EulerMaruyamaSampler
from unnoise.samplers.predictor_corrector import PredictorCorrectorSampler

PREDICTORS = {"ancestral": AncestralSampler(), "ddim": DDIMSampler(), "euler_maruyama": EulerMaruyamaSampler()}


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


def mixture(schedule, dimensions=2):
    means = torch.randn(2, dimensions, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return GaussianMixtureOracle(means, f64([0.5, 0.3]), f64([0.6, 0.4]), schedule)


def normal(schedule):
    """N(1, 0.5^2)."""
    return GaussianMixtureOracle(f64([[1.0]]), f64([0.5]), f64([1.0]), schedule)


@pytest.mark.parametrize("norms", ["expected", "measured"])
@pytest.mark.parametrize("name", PREDICTORS)
@pytest.mark.parametrize("schedule", [VPSchedule(), FlowSchedule(), VarianceExplodingSchedule()], ids=str)
def test_a_step_is_the_predictors_and_then_langevins_rule_with_draws_of_its_own(schedule, name, norms):
    oracle, noise, t, s = mixture(schedule, 3), NoiseSource(1, range(4)), f64(0.6), f64(0.5)
    x = noise.start((3,), torch.float64)
    sampler = PredictorCorrectorSampler(name, corrections=2, snr=0.2, norms=norms)
    found = sampler.step(oracle, x, t, s, None, noise=noise)
    x = PREDICTORS[name].step(oracle, x, t, s, None, noise=noise).x
    for draw in (1, 2):
        gradient, z, denoised = oracle.score(x, s), noise(x, 0.6, 0.5, draw), oracle(x, s)
        length = torch.full((4, 1), 2 * 0.2**2 * float(schedule.sigma(s)) ** 2, dtype=torch.float64)
        if norms == "measured":
            length = 2 * (0.2 * z.norm(dim=1) / gradient.norm(dim=1))[:, None] ** 2
            length = length.clamp(max=float(schedule.sigma(s)) ** 2)
        x = x + length * gradient + (2 * length).sqrt() * z
    torch.testing.assert_close(found.x, x, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.denoised, denoised, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", PREDICTORS)
def test_without_corrections_it_is_the_predictor(name):
    oracle, noise = mixture(FlowSchedule()), NoiseSource(1, range(4))
    sampler = PredictorCorrectorSampler(name, corrections=0)
    assert sampler.stochastic == PREDICTORS[name].stochastic
    both = (
        sample(each, oracle, noise.start((2,), torch.float64), grids.uniform(7), noise=noise)
        for each in (sampler, PREDICTORS[name])
    )
    assert torch.equal(*both)


def test_calls_are_one_a_step_and_one_a_correction_but_none_at_clean_data():
    sampler = PredictorCorrectorSampler(corrections=3)
    assert sampler.network_calls(f64([1.0, 0.5, 0.2, 0.0])) == 3 + 3 * 2
    assert sampler.network_calls(f64([1.0, 0.5, 0.2])) == 2 + 3 * 2
    assert sampler.network_calls(f64([1.0, 0.0])) == 1


def test_a_sample_does_not_depend_on_its_batch_with_measured_norms_either():
    oracle, grid, chosen = mixture(VPSchedule(), 8), grids.uniform(10), [4, 0, 17]

    def run(indices):
        noise = NoiseSource(3, indices)
        sampler = PredictorCorrectorSampler(norms="measured")
        return sample(sampler, oracle, noise.start((8,), torch.float64), grid, noise=noise)

    together = run(chosen)
    for i, index in enumerate(chosen):
        torch.testing.assert_close(run([index])[0], together[i], rtol=1e-12, atol=1e-12)


def corrected(snr, corrections, s, spread):
    """The variance of noisy N(1, 0.5^2) at time s after corrections alone, from a wrong spread; exactly, by one unit a draw."""
    schedule = FlowSchedule()
    oracle, alpha, sigma = normal(schedule), 1 - s, s
    sampler = PredictorCorrectorSampler("ddim", corrections=corrections, snr=snr)
    x = torch.full((corrections + 2, 1), alpha, dtype=torch.float64)
    x[1] += spread

    def noise(like, t, s, draw=0):
        drawn = torch.zeros_like(like)
        drawn[1 + draw] = 1
        return drawn

    # A predictor's step of no length.
    end = sampler.step(oracle, x, f64(s * (1 + 1e-13)), f64(s), None, noise=noise).x[:, 0]
    assert float(end[0]) == pytest.approx(alpha, abs=1e-9)
    return float((end[1:] - end[0]).square().sum()), alpha**2 * 0.25 + sigma**2


@pytest.mark.parametrize("snr", [0.08, 0.16, 0.4])
def test_many_corrections_lead_to_the_marginal_but_for_what_their_length_leaves(snr):
    """x -> (1 - e / v) x + sqrt(2 e) z has the variance v / (1 - e / 2 v)."""
    length = 2 * snr**2 * 0.5**2
    for spread in (0.0, 2.0):
        found, exact = corrected(snr, round(2 / length), 0.5, spread)
        assert found == pytest.approx(exact / (1 - length / (2 * exact)), rel=1e-3)


def test_each_correction_takes_a_wrong_spread_by_its_factor_towards_the_right_one():
    length = 2 * 0.16**2 * 0.5**2
    exact = corrected(0.16, 0, 0.5, 0.0)[1]
    factor = (1 - length / exact) ** 2
    for corrections in (0, 1, 5):
        found, _ = corrected(0.16, corrections, 0.5, 2.0)
        limit = exact / (1 - length / (2 * exact))
        assert found - limit == pytest.approx((4 - limit) * factor**corrections, rel=1e-6)


@pytest.mark.parametrize("norms", ["expected", "measured"])
def test_corrections_mend_the_noise_that_a_coarse_predictor_leaves_in_data_of_many_dimensions(norms):
    """Four steps of DDIM leave too little spread; 64 dimensions and 400 samples make a standard error of 0.5 %."""
    schedule = VPSchedule()
    oracle = GaussianMixtureOracle(torch.zeros(1, 64), f64([0.5]), f64([1.0]), schedule)
    noise, grid = NoiseSource(2, range(400)), torch.linspace(1, 0.2, 5, dtype=torch.float64)
    exact = float(((0.5 * schedule.alpha(grid[-1])) ** 2 + schedule.sigma(grid[-1]) ** 2).sqrt())
    sampler = PredictorCorrectorSampler("ddim", corrections=12, snr=0.2, norms=norms)
    both = (
        sample(each, oracle, noise.start((64,), torch.float64), grid, noise=noise) for each in (DDIMSampler(), sampler)
    )
    plain, mended = (float(x.std()) / exact - 1 for x in both)
    assert plain < -0.07
    # 2 % is left by the length of the steps, and as much by steps that are longer where more noise is drawn.
    assert abs(mended) < 0.05


def test_a_measured_step_is_finite_where_the_score_vanishes():
    oracle, noise = normal(VPSchedule()), NoiseSource(0, [0])
    t, s = f64(0.50001), f64(0.5)
    x = VPSchedule().alpha(t) * torch.ones(1, 1, dtype=torch.float64)
    sigma = float(VPSchedule().sigma(s))
    found = PredictorCorrectorSampler("ddim", norms="measured").step(oracle, x, t, s, None, noise=noise).x
    z = float(noise(x, 0.50001, 0.5, 1))
    assert float(found) - float(x) == pytest.approx(math.sqrt(2) * sigma * z, abs=1e-4)
