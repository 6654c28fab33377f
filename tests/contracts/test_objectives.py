"""What every objective, weighting and time density must do, over the whole registries."""

import json
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from unnoise.denoisers.base import denoisers
from unnoise.denoisers.learned_variance import LearnedVarianceDenoiser
from unnoise.errors import IncompatibleParts
from unnoise.objectives.base import Draws, drop_conditions, objectives
from unnoise.objectives.times import time_densities
from unnoise.objectives.weightings import weightings
from unnoise.process.cosine import CosineSchedule
from unnoise.process.flow import FlowSchedule
from unnoise.process.linear import LinearSchedule
from unnoise.process.variance_exploding import VarianceExplodingSchedule

SCALE = 0.8  # sigma_data


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


class Exact(nn.Module):
    """The network whose denoiser is the oracle, plus a perturbation of weights: a scale, a shift and a label's shift."""

    def __init__(self, doubled):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(3, dtype=torch.float64))
        self.doubled = doubled
        self.answer = None

    def forward(self, x, noise_level, cond=None):
        over = [-1, *[1] * (x.ndim - 1)]
        sign = torch.cos(noise_level.to(x) / 200).reshape(over)
        answer = self.answer + self.shift[0] + self.shift[1] * x + self.shift[2] * sign
        return torch.cat([answer, torch.zeros_like(answer)], 1) if self.doubled else answer


def problem(objective, prediction, schedule, mixture, n=5000, seed=0):
    """A denoiser that is exact, the oracle, and draws."""
    oracle = mixture(schedule)
    network = Exact(objective.learns_variance)
    inner = denoisers[prediction](network, schedule, SCALE)
    denoiser = LearnedVarianceDenoiser(inner) if objective.learns_variance else inner
    generator = torch.Generator().manual_seed(seed)
    t = objective.times.quantile(torch.rand(n, dtype=torch.float64, generator=generator), schedule)
    draws = Draws(oracle.sample(n, seed), torch.randn(n, 2, dtype=torch.float64, generator=generator), t, None)
    x_t = schedule.alpha(t)[:, None] * draws.x_0 + schedule.sigma(t)[:, None] * draws.eps
    c = inner.coefficients(t)
    network.answer = (oracle(x_t, t) - c.skip[:, None] * x_t) / c.out[:, None]
    return denoiser, oracle, draws, network


@pytest.fixture(params=list(objectives))
def objective(request):
    return objectives.build(request.param)


@pytest.mark.parametrize("weighting", list(weightings))
@pytest.mark.parametrize("prediction", list(denoisers))
@pytest.mark.parametrize("schedule", [LinearSchedule(), CosineSchedule()], ids=["linear", "cosine"])
def test_the_exact_denoiser_has_the_loss_of_the_floor_and_nothing_is_below_it(
    objective, weighting, prediction, schedule, mixture
):
    objective = type(objective)(
        weighting=weightings.build(weighting), **({"vlb_weight": 0.0} if objective.learns_variance else {})
    )
    denoiser, oracle, draws, network = problem(objective, prediction, schedule, mixture)
    prepared = objective.prepare(denoiser, draws)
    losses = objective.losses(denoiser, prepared)
    floors = objective.floors(denoiser, oracle, draws)
    assert losses.shape == floors.shape == (len(draws.t),)
    torch.testing.assert_close(losses, floors, rtol=1e-7, atol=1e-12)
    # The gradient vanishes at the oracle: of every weight, its mean is within 4.5 standard errors of 0.
    each = []
    answer = network.answer
    for part in torch.arange(len(draws.t)).chunk(40):
        network.answer = answer[part]
        (gradient,) = torch.autograd.grad(
            objective.losses(denoiser, prepared.slice(int(part[0]), int(part[-1]) + 1)).mean(), network.shift
        )
        each.append(gradient)
    mean, error = torch.stack(each).mean(0), torch.stack(each).std(0) / 40**0.5
    assert bool((mean.abs() < 4.5 * error).all())
    # and every move from there costs: by the squared move, beyond what chance would do to the linear term
    network.answer = answer
    with torch.no_grad():
        for direction in torch.eye(3, dtype=torch.float64):
            both = []
            for sign in (1.0, -1.0):
                network.shift.copy_(0.1 * sign * direction)
                both.append(float(objective.losses(denoiser, prepared).mean()))
            assert sum(both) / 2 > float(losses.mean())


@pytest.mark.parametrize("shape", [(4, 4), (4, 2, 3, 4)], ids=["points, batch = dimension", "images, batch = width"])
def test_losses_are_those_of_each_sample_and_slices_are_parts(objective, shape):
    schedule = LinearSchedule()
    generator = torch.Generator().manual_seed(0)
    x_0, eps = torch.randn(2, *shape, dtype=torch.float64, generator=generator)
    network = Exact(objective.learns_variance)
    network.answer = torch.zeros(shape, dtype=torch.float64)
    inner = denoisers["noise"](network, schedule)
    denoiser = LearnedVarianceDenoiser(inner) if objective.learns_variance else inner
    draws = Draws(x_0, eps, f64([0.001, 0.3, 0.5, 1.0]), {"label": torch.arange(4)})
    prepared = objective.prepare(denoiser, draws)
    together = objective.losses(denoiser, prepared).detach()
    assert together.shape == (4,)
    # a network that says 0 has the mean square of the noise as its loss
    plain = type(objective)(**({"vlb_weight": 0.0} if objective.learns_variance else {}))
    torch.testing.assert_close(
        plain.losses(denoiser, prepared).detach(), eps.square().flatten(1).mean(1), rtol=1e-12, atol=0
    )
    for i in range(4):
        network.answer = torch.zeros((1, *shape[1:]), dtype=torch.float64)
        part = prepared.slice(i, i + 1)
        assert part.cond["label"].tolist() == part.draws.cond["label"].tolist() == [i]
        torch.testing.assert_close(
            objective.losses(denoiser, part).detach(), together[i : i + 1], rtol=1e-12, atol=1e-12
        )


def test_an_oracle_has_nothing_to_train(objective, mixture):
    with pytest.raises(IncompatibleParts):
        objective.prepare(mixture(LinearSchedule()), Draws(torch.zeros(1, 2), torch.zeros(1, 2), f64([0.5]), None))


def test_objectives_survive_their_description(objective):
    spec = json.loads(json.dumps(objectives.describe(objective)))
    assert objectives.build(spec) == objective
    assert hash(objectives.build(spec)) == hash(objective)


# Weightings

SCHEDULES = [LinearSchedule(), CosineSchedule(), FlowSchedule(), VarianceExplodingSchedule()]
TIMES = f64([0.05, 0.3, 0.6, 0.95])


@pytest.mark.parametrize("prediction", list(denoisers))
@pytest.mark.parametrize("name", list(weightings))
def test_weights_are_positive_and_finite(name, prediction):
    d = denoisers[prediction](None, CosineSchedule(), SCALE)
    weight = weightings.build(name).weight(TIMES, d.schedule, d.coefficients(TIMES).out, SCALE)
    assert weight.shape == TIMES.shape
    assert weight.dtype == torch.float64
    assert bool((weight > 0).all())
    assert bool(weight.isfinite().all())


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.registered_name)
def test_weights_are_the_formulas_of_the_papers(schedule):
    alpha, sigma = schedule.alpha(TIMES), schedule.sigma(TIMES)
    snr = alpha**2 / sigma**2
    gamma = snr.clamp(max=5)

    def weight(name, prediction):
        d = denoisers[prediction](None, schedule, SCALE)
        return weightings.build(name).weight(TIMES, schedule, d.coefficients(TIMES).out, SCALE)

    ones = torch.ones_like(snr)
    expected = {
        ("uniform", "noise"): ones,
        ("uniform", "v"): ones,
        ("snr", "noise"): ones,
        ("snr", "x0"): snr * SCALE**2,
        # min(SNR, 5) on the error of x_0; on that of the noise min(SNR, 5) / SNR, on that of v min(SNR, 5) / (SNR + 1)
        ("min_snr", "x0"): gamma * SCALE**2,
        ("min_snr", "noise"): gamma / snr,
        ("edm", "edm"): ones,
        ("edm", "x0"): (snr + 1 / SCALE**2) * SCALE**2,
        ("snr_plus_one", "x0"): (snr + 1) * SCALE**2,
        ("truncated_snr", "noise"): torch.maximum(ones, 1 / snr),
        ("p2", "noise"): 1 / (1 + snr),
        # e^b sigmoid(ln SNR - b) on the error of x_0 is sigmoid(b - ln SNR) on that of the noise
        ("sigmoid", "noise"): 1 / (1 + snr * math.exp(-2)),
        ("soft_min_snr", "x0"): 1 / (1 / snr + 1 / 4) * SCALE**2,
    }
    if schedule.registered_name in ("linear", "cosine"):
        expected["min_snr", "v"] = gamma / (snr + 1)
        expected["snr_plus_one", "v"] = ones
        expected["p2", "v"] = snr / (snr + 1) ** 2
    if schedule.registered_name == "variance_exploding":
        expected["edm", "x0"] = (sigma**2 + SCALE**2) / (sigma * SCALE) ** 2 * SCALE**2
        expected["snr", "score"] = sigma**2
        expected["soft_min_snr", "x0"] = SCALE**2 / (sigma**2 + 0.25)
    if schedule.vanishing:
        expected = {key: formula for key, formula in expected.items() if key[1] != "noise"}
    for (name, prediction), formula in expected.items():
        torch.testing.assert_close(weight(name, prediction), formula, rtol=1e-10, atol=0)


@pytest.mark.parametrize("name", [name for name in weightings if name != "uniform"])
def test_a_weighting_means_the_same_for_every_prediction(name, mixture):
    """One denoiser, written as six networks, has one loss."""
    schedule = CosineSchedule()
    oracle = mixture(schedule)
    x_0, eps = oracle.sample(4, 0), torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x_t = schedule.alpha(TIMES)[:, None] * x_0 + schedule.sigma(TIMES)[:, None] * eps
    wrong = 0.7 * oracle(x_t, TIMES) + 0.2
    found = {}
    for prediction in denoisers:
        network = Exact(doubled=False)
        denoiser = denoisers[prediction](network, schedule, SCALE)
        c = denoiser.coefficients(TIMES)
        network.answer = (wrong - c.skip[:, None] * x_t) / c.out[:, None]
        objective = objectives.build({"name": "mse", "weighting": name})
        prepared = objective.prepare(denoiser, Draws(x_0, eps, TIMES, None))
        found[prediction] = objective.losses(denoiser, prepared).detach()
    reference = found.pop("x0")
    for losses in found.values():
        torch.testing.assert_close(losses, reference, rtol=1e-9, atol=0)
    plain = objectives.build("mse")
    assert not torch.allclose(plain.losses(denoiser, plain.prepare(denoiser, prepared.draws)), reference, rtol=0.1)


def test_p2_without_gamma_is_the_plain_error_of_the_noise():
    schedule = LinearSchedule()
    out = denoisers["noise"](None, schedule).coefficients(TIMES).out
    plain = weightings.build({"name": "p2", "gamma": 0.0}).weight(TIMES, schedule, out, SCALE)
    torch.testing.assert_close(plain, torch.ones_like(plain), rtol=1e-12, atol=0)
    squared = weightings.build({"name": "p2", "gamma": 2.0, "k": 0.5}).weight(TIMES, schedule, out, SCALE)
    torch.testing.assert_close(squared, (0.5 + schedule.log_snr(TIMES).exp()) ** -2, rtol=1e-10, atol=0)


def test_min_snr_cuts_low_noise_and_not_high_noise():
    schedule = LinearSchedule()
    d = denoisers["noise"](None, schedule)
    low, high = (
        weightings.build("min_snr")
        .weight(f64([0.01, 0.9]), schedule, d.coefficients(f64([0.01, 0.9])).out, 1.0)
        .tolist()
    )
    assert low < 0.05
    assert high == pytest.approx(1, rel=1e-12)


# Time densities


@pytest.mark.parametrize("name", list(time_densities))
def test_quantiles_rise_within_the_trained_times(schedule, name):
    u = torch.linspace(1e-6, 1 - 1e-6, 2001, dtype=torch.float64)
    t = time_densities.build(name).quantile(u, schedule)
    assert t.shape == u.shape
    assert t.dtype == torch.float64
    assert bool((t.diff() >= 0).all())
    assert float(t.min()) >= schedule.t_min * (1 - 1e-12)
    assert float(t.max()) <= 1
    assert float(t.max() - t.min()) > 0.2


def test_a_chain_is_trained_on_its_levels_each_as_often(discrete_schedule):
    levels = discrete_schedule.num_steps
    u = (torch.arange(20 * levels, dtype=torch.float64) + 0.5) / (20 * levels)
    t = time_densities.build("uniform").quantile(u, discrete_schedule)
    found, counts = torch.unique(t, return_counts=True)
    assert found.tolist() == [(k + 1) / levels for k in range(levels)]
    assert set(counts.tolist()) == {20}
    ends = time_densities.build("uniform").quantile(f64([2.0**-33, 1 - 2.0**-33]), discrete_schedule)
    assert ends.tolist() == [1 / levels, 1.0]


@pytest.mark.parametrize("schedule_of", [FlowSchedule, VarianceExplodingSchedule, CosineSchedule])
def test_densities_are_the_distributions_that_they_say(schedule_of):
    schedule = schedule_of()
    u = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000

    def deviation(sample, distribution):
        return stats.kstest(sample.numpy(), distribution.cdf).statistic

    t = time_densities.build({"name": "logit_normal", "mean": 0.3, "std": 0.8}).quantile(u, schedule)
    inner = (t > schedule.t_min) & (t < 1)
    assert float(inner.double().mean()) > 0.999
    assert deviation(torch.logit(t[inner]), stats.norm(0.3, 0.8)) < 2e-3

    t = time_densities.build({"name": "cosine_map"}).quantile(u, schedule)
    inner = (t > schedule.t_min) & (t < 1)
    of_angle = 2 / np.pi * torch.atan(t / (1 - t))  # tan of the angle of the cosine schedule is sigma / alpha
    torch.testing.assert_close(of_angle[inner], u[inner])

    def log_sigma(t):
        return -schedule.log_snr(t) / 2

    t = time_densities.build({"name": "log_normal", "mean": -0.5, "std": 1.0}).quantile(u, schedule)
    assert deviation(log_sigma(t), stats.norm(-0.5, 1.0)) < 2e-3
    t = time_densities.build({"name": "log_uniform", "low": 0.02, "high": 10.0}).quantile(u, schedule)
    assert deviation(log_sigma(t), stats.uniform(np.log(0.02), np.log(10 / 0.02))) < 2e-3
    if not schedule.num_steps:
        t = time_densities.build("uniform").quantile(u, schedule)
        assert deviation(t, stats.uniform(schedule.t_min, 1 - schedule.t_min)) < 1e-4


@pytest.mark.parametrize("scale", [-1.0, 0.0, 1.29, 1.75])
def test_mode_times_are_mapped_as_the_paper_says_and_never_turn_round(scale):
    u = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    t = time_densities.build({"name": "mode", "scale": scale}).quantile(u, FlowSchedule())
    v = 1 - u  # uniform, too, and the formula of the paper falls
    expected = 1 - v - scale * (torch.cos(np.pi / 2 * v) ** 2 - 1 + v)
    torch.testing.assert_close(t, expected.clamp(FlowSchedule().t_min, 1))
    assert (t.diff() >= 0).all()
    middle = float(((t > 0.4) & (t < 0.6)).double().mean())
    assert (middle > 0.21) == (scale > 0)
    assert (middle < 0.19) == (scale < 0)


def test_dropped_conditions_ask_for_nothing():
    cond = {"label": torch.tensor([1, 2, 3]), "picture": torch.ones(3, 3, 3)}
    null = {"label": torch.tensor([9, 9, 9]), "picture": torch.zeros(3, 3, 3)}
    dropped = drop_conditions(cond, null, torch.tensor([False, True, False]))
    assert dropped["label"].tolist() == [1, 9, 3]
    assert dropped["picture"].sum((1, 2)).tolist() == [9, 0, 9]
    assert drop_conditions(None, null, torch.tensor([True])) is None
