"""The sampler arc: its weights, what it solves exactly, and the order of its rules."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from unnoise.denoisers.edm import EDMDenoiser
from unnoise.denoisers.oracle import DatasetOracle, GaussianMixtureOracle
from unnoise.errors import BadOption, IncompatibleParts
from unnoise.guidance.base import Guided
from unnoise.guidance.classifier_free import ClassifierFreeGuidance
from unnoise.process.cosine import CosineSchedule
from unnoise.process.flow import FlowSchedule
from unnoise.process.linear import LinearSchedule
from unnoise.process.variance_exploding import VarianceExplodingSchedule
from unnoise.samplers import grids
from unnoise.samplers.arc import ArcSampler, _Memory, _rule
from unnoise.samplers.base import sample
from unnoise.samplers.dpmpp_2m import DPMSolverPPSampler

SCHEDULES = [LinearSchedule(), CosineSchedule(), FlowSchedule(), VarianceExplodingSchedule()]
MEANS, STDS, WEIGHTS = (
    np.array([[1.0, 0.3], [-0.8, 0.6], [0.1, -1.1]]),
    np.array([0.5, 0.7, 0.4]),
    np.array([0.5, 0.2, 0.3]),
)


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


def mixture(schedule):
    return GaussianMixtureOracle(f64(MEANS), f64(STDS), f64(WEIGHTS), schedule)


def posterior_mean(x, sigma):
    """Of the mixture, for x = x_0 + sigma eps, in numpy."""
    variance = STDS**2 + sigma**2
    offset = x[:, None] - MEANS
    logits = np.log(WEIGHTS) - np.log(variance) - (offset**2).sum(-1) / (2 * variance)
    share = np.exp(logits - logits.max(1, keepdims=True))
    share = (share / share.sum(1, keepdims=True))[..., None]
    return (share * (MEANS + (STDS**2 / variance)[:, None] * offset)).sum(1)


def at_angles(schedule, angles, spread):
    """The times at which atan(sigma / (alpha spread)) has these values."""
    return schedule.time_of(-2 * torch.log(torch.tan(f64(angles)) * spread))


def test_on_even_angles_the_weights_are_those_of_adams():
    schedule, spread, h = LinearSchedule(), 0.7, 0.15
    times = [float(t) for t in at_angles(schedule, [1.2, 1.2 - h, 1.2 - 2 * h, 1.2 - 3 * h], spread)]
    scale = math.hypot(float(schedule.sigma(f64(times[3]))), spread * float(schedule.alpha(f64(times[3]))))
    bashforth = _rule(schedule, (times[2], times[1], times[0]), times[2], times[3], spread).on_slopes
    np.testing.assert_allclose(np.array(bashforth) / (-h * scale), np.array([23, -16, 5]) / 12, rtol=1e-7)
    moulton = _rule(schedule, (times[3], times[2], times[1], times[0]), times[2], times[3], spread).on_slopes
    np.testing.assert_allclose(np.array(moulton) / (-h * scale), np.array([9, 19, -5, 1]) / 24, rtol=1e-7)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("n", [1, 2, 7])
def test_round_normal_data_is_solved_exactly_in_any_number_of_steps(schedule, n):
    oracle = GaussianMixtureOracle(f64([[0.0, 0.0]]), f64([0.3]), f64([1.0]), schedule)
    assert oracle.sigma_data == pytest.approx(0.3)
    alpha, sigma = float(schedule.alpha(f64(1.0))), float(schedule.sigma(f64(1.0)))
    z = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = sample(ArcSampler(), oracle, math.hypot(sigma, 0.3 * alpha) * z, grids.uniform(n))
    torch.testing.assert_close(found, 0.3 * z, rtol=1e-9, atol=1e-9)


def transcription(x, sigmas, spread, predictor, corrector):
    """The rules written out in sigma, without a schedule, by polynomials that numpy fits."""
    angles = np.arctan(sigmas / spread)
    y = x / np.hypot(sigmas[0], spread)
    kept, slopes, before = [], [], None

    def integral(nodes, values, begin, end):
        # Slopes that stand too close together for the step are left out.
        first = nodes.index(begin)
        many = first + 1
        while many < len(nodes) and nodes[many] - begin >= (many - first) * 0.25 * (begin - end):
            many += 1
        nodes, values = nodes[:many], values[:many]
        matrix = np.vander(np.array(nodes), increasing=True)
        coefficients = np.linalg.solve(matrix, np.stack([v.ravel() for v in values]))
        powers = np.arange(1, len(nodes) + 1)
        return (((end**powers - begin**powers) / powers) @ coefficients).reshape(y.shape)

    for i in range(len(sigmas) - 1):
        theta = angles[i]
        slope = (np.cos(theta) * y - posterior_mean(y * np.hypot(sigmas[i], spread), sigmas[i]) / spread) / np.sin(
            theta
        )
        kept, slopes = [theta, *kept], [slope, *slopes]
        if i and corrector:
            y = before + integral(kept[:corrector], slopes[:corrector], angles[i - 1], theta)
        before = y
        y = y + integral(kept[:predictor], slopes[:predictor], theta, angles[i + 1])
    return y * spread


@pytest.mark.parametrize(("predictor", "corrector"), [(1, 0), (3, 0), (1, 2), (2, 3), (3, 4), (4, 4), (4, 5)])
@pytest.mark.parametrize("name", ["uniform", "angle", "log_snr"])
def test_a_run_is_the_rules_written_out(predictor, corrector, name):
    schedule = VarianceExplodingSchedule()
    oracle, grid = mixture(schedule), grids.make_grid(name, 13, schedule)
    x = 80 * torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    found = sample(ArcSampler(predictor, corrector), oracle, x, grid)
    expected = transcription(x.numpy(), schedule.sigma(grid).numpy(), oracle.sigma_data, predictor, corrector)
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-7)


def exact(x, begin, ends):
    """The probability-flow ODE dx/dsigma = (x - D) / sigma, from one sigma to others below it."""

    def slope(sigma, flat):
        points = flat.reshape(-1, 2)
        return ((points - posterior_mean(points, sigma)) / sigma).ravel()

    solved = solve_ivp(slope, (begin, ends[-1]), x.ravel(), method="DOP853", rtol=1e-12, atol=1e-13, t_eval=ends)
    return solved.y.T.reshape(len(ends), -1, 2)


@pytest.mark.parametrize(("predictor", "corrector"), [(1, 2), (2, 3), (3, 4), (4, 4), (4, 5), (2, 0), (3, 0), (4, 0)])
@pytest.mark.parametrize("uneven", [False, True])
def test_with_an_exact_past_the_rules_have_their_order(predictor, corrector, uneven):
    schedule, oracle = VarianceExplodingSchedule(), mixture(VarianceExplodingSchedule())
    spread, sampler = oracle.sigma_data, ArcSampler(predictor, corrector)
    x, errors, counts = np.random.default_rng(3).normal(size=(4, 2)) * 3, [], (32, 64, 128)
    for n in counts:
        steps = np.tile([3.0, 1.0], n // 2) if uneven else np.ones(n)
        angles = 1.25 - 1.0 * np.concatenate([[0.0], steps.cumsum() / steps.sum()])
        times, sigmas = at_angles(schedule, angles, spread), np.tan(angles) * spread
        path = exact(x, sigmas[0], sigmas)
        known = max(predictor, corrector)
        slopes = [
            (np.cos(a) * p / np.hypot(s, spread) - posterior_mean(p, s) / spread) / np.sin(a)
            for a, s, p in zip(angles, sigmas, path, strict=True)
        ]
        past = range(known - 1, -1, -1)
        state = _Memory(f64(path[known - 1]), tuple(float(times[i]) for i in past), tuple(f64(slopes[i]) for i in past))
        here = f64(path[known])
        for i in range(known, n):
            here, _, state = sampler.step(oracle, here, times[i], times[i + 1], state)
        errors.append(float((here - f64(path[-1])).square().mean().sqrt()))
    order = min(predictor + 1, corrector) if corrector else predictor
    assert np.polyfit(np.log(counts), -np.log(errors), 1)[0] > order - 0.45
    assert sampler.order <= order


def test_the_spread_is_the_models_own_unless_it_is_given():
    schedule = LinearSchedule()
    points = torch.randn(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 0.2
    oracle = DatasetOracle(points, schedule)
    assert oracle.sigma_data == pytest.approx(float((points - points.mean(0)).square().mean().sqrt()))
    assert EDMDenoiser(None, schedule, sigma_data=0.6).sigma_data == 0.6
    assert Guided(oracle, ClassifierFreeGuidance()).sigma_data == oracle.sigma_data
    x, grid = torch.ones(2, 3, dtype=torch.float64), grids.uniform(5)
    own, given, other = (sample(ArcSampler(sigma_data=s), oracle, x, grid) for s in (None, oracle.sigma_data, 1.0))
    assert torch.equal(own, given)
    assert not torch.allclose(own, other)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_it_is_several_times_nearer_to_the_exact_end_than_the_second_order_multistep(schedule):
    oracle = mixture(schedule)
    x = torch.randn(200, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    x = x * float(schedule.sigma(f64(1.0)))
    truth = sample(ArcSampler(4, 5), oracle, x, grids.make_grid("angle", 600, schedule, sigma_data=oracle.sigma_data))
    again = sample(ArcSampler(3, 4), oracle, x, grids.make_grid("angle", 900, schedule, sigma_data=oracle.sigma_data))
    torch.testing.assert_close(truth, again, rtol=0, atol=1e-6)

    def error(sampler, name, n):
        grid = grids.make_grid(name, n, schedule, sigma_data=oracle.sigma_data)
        return float((sample(sampler, oracle, x, grid) - truth).square().mean().sqrt())

    for n, ratio in ((8, 0.6), (15, 0.3), (30, 0.1)):
        others = min(error(DPMSolverPPSampler(), name, n) for name in ("uniform", "log_snr", "karras", "angle"))
        assert error(ArcSampler(), "angle", n) < ratio * others


def test_without_numbers_in_them_weights_change_nothing():
    oracle, grid = mixture(CosineSchedule()), grids.make_grid("angle", 5, CosineSchedule(), sigma_data=0.8)
    x = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    for rule in ((2, 3), (4, 5), (3, 0)):
        nothing = ArcSampler(*rule, weights=((0.0,), (0.0, 0.0, 0.0), (0.0,), (0.0, 0.0), (0.0, 0.0, 0.0, 0.0, 0.0)))
        # The same sums in the same order; slopes that are kept longer are multiplied by 0.
        torch.testing.assert_close(
            sample(nothing, oracle, x, grid), sample(ArcSampler(*rule), oracle, x, grid), rtol=1e-13, atol=1e-13
        )


def test_weights_make_any_rule_of_another():
    """From Euler's, those of Adams and Bashforth: what is added is the difference of the two, in units of the step."""
    schedule, spread, h = LinearSchedule(), 0.7, 0.2
    oracle = mixture(schedule)
    grid = at_angles(schedule, [1.4, 1.4 - h, 1.4 - 2 * h, 1.4 - 3 * h], spread)
    x = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    added = ((0.0,), (0.0, 0.5, -0.5), (0.0, 11 / 12, -16 / 12, 5 / 12))
    by_weights = sample(ArcSampler(1, 0, spread, weights=added), oracle, x, grid)
    torch.testing.assert_close(by_weights, sample(ArcSampler(3, 0, spread), oracle, x, grid), rtol=1e-7, atol=1e-7)


def test_the_weight_on_y_is_a_rate():
    schedule, spread = FlowSchedule(), 0.7
    oracle = GaussianMixtureOracle(f64([[0.0, 0.0]]), f64([spread]), f64([1.0]), schedule)  # where every slope is 0
    grid = at_angles(schedule, [1.3, 1.0, 0.4], spread)
    x = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    scale = [math.hypot(float(schedule.sigma(t)), spread * float(schedule.alpha(t))) for t in grid]
    found = sample(ArcSampler(weights=((0.0,), (0.5,))), oracle, x, grid)
    torch.testing.assert_close(found, scale[2] / scale[0] * (1 + (0.4 - 1.0) * 0.5) * x, rtol=1e-7, atol=1e-9)


def test_weights_that_do_not_fit_are_refused():
    oracle, x = mixture(FlowSchedule()), torch.ones(1, 2, dtype=torch.float64)
    with pytest.raises(IncompatibleParts, match="for 2 steps were given, and the grid has 3"):
        sample(ArcSampler(weights=((0.1,), (0.1,))), oracle, x, grids.uniform(3))
    with pytest.raises(BadOption, match="row 0 must have 1 to 2 numbers"):
        ArcSampler(weights=((0.1, 0.2, 0.3),))
    with pytest.raises(BadOption, match="row 1 must have 1 to 3 numbers"):
        ArcSampler(weights=((0.1,), ()))
    with pytest.raises(BadOption, match="must be finite"):
        ArcSampler(weights=((math.nan,),))
