"""What every sampler and every grid must do, over the whole registry."""

import functools
import itertools
import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from unnoise.denoisers.base import Denoiser
from unnoise.denoisers.oracle import GaussianMixtureOracle
from unnoise.errors import BadOption, ShapeError
from unnoise.process.base import scales
from unnoise.process.cosine import CosineSchedule
from unnoise.process.flow import FlowSchedule
from unnoise.process.linear import LinearSchedule
from unnoise.process.variance_exploding import VarianceExplodingSchedule
from unnoise.randomness import NoiseSource
from unnoise.registry import Registry
from unnoise.samplers import grids
from unnoise.samplers.base import family, sample, samplers, toward, trajectory

MEMBERS = family(proven_too=True)
SOLVERS = [s for s in MEMBERS if not s.stochastic and s.order]
FIXED = [s for s in MEMBERS if s.network_calls(grids.uniform(3)) is not None]
STOCHASTIC = [s for s in MEMBERS if s.stochastic]
SAMPLING = [s for s in MEMBERS if not s.wants_consistency]
COUNTS = (1, 2, 3, 7, 13, 300, 1000)
FEW, MANY = COUNTS[:4], 50


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


def called(sampler):
    return ", ".join(f"{k}={v}" for k, v in samplers.describe(sampler).items())


def members(which):
    return pytest.mark.parametrize("sampler", which, ids=called)


class Counting(Denoiser):
    """A cheap denoiser that keeps the times it was asked at, and the batch sizes."""

    def __init__(self, schedule):
        super().__init__()
        self.schedule, self.times = schedule, []

    def forward(self, x_t, t, cond=None):
        self.times.append(float(t))
        return 0.3 * x_t


class Quick(GaussianMixtureOracle):
    """The same denoiser, but what a time that all samples have in common fixes is worked out once, for all samplers.

    With var_k = alpha^2 s_k^2 + sigma^2 the logarithm of a component's share is linear in (x, |x|^2), and so, given the
    shares, is E[x_0 | x] in x.
    """

    def __init__(self, *args):
        super().__init__(*args)
        self.fixed = functools.cache(self._fixed)

    def _fixed(self, t):
        alpha, sigma = scales(self.schedule, t)
        variance = alpha**2 * self.stds**2 + sigma**2
        pull = alpha * self.stds**2 / variance
        offset = self.log_weights - self.means.shape[1] / 2 * variance.log()
        offset = offset - (alpha * self.means).square().sum(1) / (2 * variance)
        slope = torch.cat([(alpha / variance)[:, None] * self.means, (-0.5 / variance)[:, None]], 1)
        return offset, slope.T.contiguous(), torch.cat([(1 - alpha * pull)[:, None] * self.means, pull[:, None]], 1)

    def forward(self, x_t, t, cond=None):
        if cond is not None or t.ndim:
            return super().forward(x_t, t, cond)
        offset, slope, ends = self.fixed(float(t))
        end = torch.addmm(offset, torch.cat([x_t, x_t.square().sum(1, keepdim=True)], 1), slope).softmax(1) @ ends
        return end[:, :-1].addcmul(end[:, -1:], x_t)


FIELD = {
    "linear": LinearSchedule(),
    "cosine": CosineSchedule(),
    "variance exploding": VarianceExplodingSchedule(),
    "flow": FlowSchedule(),
    "linear without terminal signal": LinearSchedule().zero_terminal_snr(),
}
schedules_of_the_field = pytest.mark.parametrize("schedule", FIELD.values(), ids=FIELD)


# The exact solution, by an integrator and formulas of its own


def solution(oracle, x, start, end):
    """Where the probability-flow ODE leads from `start` to `end`.

    In u = sigma / (alpha + sigma) and z = x / (alpha + sigma) every process is the straight mixture of data and noise, and
    dz/du = E[eps | z] - E[x_0 | z].
    """
    means, stds, weights = oracle.means.numpy(), oracle.stds.numpy(), oracle.log_weights.exp().numpy()
    (a, s), (a_end, s_end) = (
        [float(f(f64(t))) for f in (oracle.schedule.alpha, oracle.schedule.sigma)] for t in (start, end)
    )

    def slope(u, flat):
        z = flat.reshape(-1, 1, 2)
        variance = (1 - u) ** 2 * stds**2 + u**2
        offset = z - (1 - u) * means
        logits = np.log(weights) - np.log(variance) - (offset**2).sum(-1) / (2 * variance)
        share = np.exp(logits - logits.max(1, keepdims=True))
        share = (share / share.sum(1, keepdims=True))[..., None]
        eps = u / variance[:, None] * offset
        x_0 = means + ((1 - u) * stds**2 / variance)[:, None] * offset
        return (share * (eps - x_0)).sum(1).ravel()

    begin, finish = s / (a + s), s_end / (a_end + s_end)
    solved = solve_ivp(slope, (begin, finish), (x / (a + s)).numpy().ravel(), method="DOP853", rtol=1e-12, atol=1e-14)
    return torch.from_numpy(solved.y[:, -1].reshape(-1, 2) * (a_end + s_end))


@functools.cache
def three(schedule):
    """Three normal distributions in the plane."""
    means = f64([[1.0, 0.3], [-0.8, 0.6], [0.1, -1.1]])
    return Quick(means, f64([0.5, 0.7, 0.4]), f64([0.5, 0.2, 0.3]), schedule)


@functools.cache
def inside(schedule):
    """The exact end of a run from time 0.95 to 0.05, and the oracle."""
    oracle = three(schedule)
    return oracle, solution(oracle, beginning(schedule, 0.95), 0.95, 0.05)


@functools.cache
def whole(schedule):
    """The exact end of a run over the whole interval from `beginning`, and the oracle."""
    oracle = three(schedule)
    return oracle, solution(oracle, beginning(schedule, 1.0), 1.0, 0.0)


def beginning(schedule, t, batch=4):
    x = torch.randn(batch, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    alpha, sigma = schedule.alpha(f64(t)), schedule.sigma(f64(t))
    return (alpha**2 * 0.8 + sigma**2).sqrt() * x


def even(n):
    return torch.linspace(0, 1, n + 1, dtype=torch.float64)


def three_to_one(n):
    steps = f64([3.0, 1.0]).repeat(n // 2)
    return torch.cat([f64([0.0]), steps.cumsum(0) / steps.sum()])


def slope_of_error(sampler, oracle, x, grid_of, exact, counts=(48, 128)):
    errors = [float((sample(sampler, oracle, x, grid_of(n)) - exact).square().mean().sqrt()) for n in counts]
    return np.polyfit(np.log(counts), -np.log(errors), 1)[0]


def test_the_quick_oracle_is_the_oracle(schedule):
    for quick in (three(schedule), normal(schedule)):
        plain = GaussianMixtureOracle(quick.means, quick.stds, quick.log_weights.exp(), schedule)
        for t in f64([1e-9, 0.01, 0.3, 0.8, 1.0]):
            x = 3 * beginning(schedule, float(t))[:, : quick.means.shape[1]]
            torch.testing.assert_close(quick(x, t), plain(x, t), rtol=1e-11, atol=1e-11)


# Times that are even on one schedule are as uneven as any in the log-SNR of another.
@pytest.mark.parametrize(
    ("schedule", "spacing"),
    [(schedule, three_to_one) for schedule in FIELD.values()] + [(FIELD["linear"], even)],
    ids=[*FIELD, "linear, even"],
)
@members([s for s in SOLVERS if s in FIXED])
def test_the_error_falls_at_the_stated_order_inside_the_interval(schedule, spacing, sampler):
    (oracle, exact), x = inside(schedule), beginning(schedule, 0.95)
    # High orders show where the steps are fine.
    counts = (48, 128) if sampler.order <= 2 else (96, 256)
    found = slope_of_error(sampler, oracle, x, lambda n: 0.95 - 0.9 * spacing(n), exact, counts)
    # Members that begin with steps of lower order can do better than they promise where those are exact.
    assert found > sampler.order - (0.25 if sampler.order <= 2 else 0.4)
    assert found < sampler.order + 0.25 or sampler.order > 1


@functools.cache
def dense_at_both_ends(schedule, n):
    """Times whose sigma / (alpha + sigma), in which the solution is smooth from noise to data, is dense at both ends.

    With equal distances there the log-SNR, in which multistep members extrapolate, makes steps of fixed size at the ends, and
    the error has a factor ln(n).
    """
    first = float(schedule.sigma(f64(1.0)) / (schedule.alpha(f64(1.0)) + schedule.sigma(f64(1.0))))
    u = first * (1 + torch.cos(math.pi * even(n))) / 2
    times = schedule.time_of(2 * (torch.log1p(-u) - u.log()))
    times[0], times[-1] = 1.0, 0.0
    return times


@schedules_of_the_field
@members([s for s in SOLVERS if s in FIXED])
def test_the_error_falls_at_the_stated_order_down_to_exactly_clean_data(schedule, sampler):
    (oracle, exact), x = whole(schedule), beginning(schedule, 1.0)
    found = slope_of_error(sampler, oracle, x, functools.partial(dense_at_both_ends, schedule), exact)
    assert found > min(sampler.order, 2) - 0.25
    assert found < sampler.order + 0.25 or sampler.order > 1


@schedules_of_the_field
@members([s for s in SOLVERS if getattr(s, "line", "auto") != "noise"])
def test_few_steps_are_rough_but_never_far_away(schedule, sampler):
    """Order says nothing of few steps: in sigma / alpha Heun's rule ends 130 away from data of size 1 after 5 of them.

    Hence rules on that line are not tried; of DPM-Solver, whose own it is too, little more is asked than that.
    """
    (oracle, exact), x = whole(schedule), beginning(schedule, 1.0)
    # Variance exploding, where Heun's rule is EDM's own, needs ten steps to come as near.
    n = 10 if schedule.alpha(f64(1.0)) == 1 else 5
    for name in grids.GRIDS:
        if name in ("trailing", "leading", "linspace") and (schedule.num_steps or 0) < 10:
            continue
        found = sample(sampler, oracle, x if name != "leading" else x * 0.99, grids.make_grid(name, n, schedule))
        far = float((found - exact).square().mean().sqrt())
        assert far < (1.3 if sampler.registered_name == "dpm_solver" else 0.5), name


@members(MEMBERS)
def test_a_run_over_the_whole_interval_is_finite_on_every_schedule(every_schedule, sampler):
    for name, schedule in every_schedule.items():
        x = beginning(schedule, 1.0)
        for n in (1, 2, 3, 20):
            for stepped in trajectory(
                sampler, three(schedule), x, grids.uniform(n), noise=NoiseSource(0, range(len(x)))
            ):
                assert bool(stepped.x.isfinite().all()), name
                assert stepped.x.shape == stepped.denoised.shape == x.shape
                assert stepped.x.dtype == x.dtype


@functools.cache
def made_grid(name, n):
    return grids.make_grid(name, n, LinearSchedule(num_steps=MANY))


@members(FIXED)
def test_network_calls_are_the_declared_ones_from_the_start_to_above_clean_data(sampler):
    x, noise, schedule = torch.ones(1, 1, dtype=torch.float64), NoiseSource(0, [0]), LinearSchedule(num_steps=MANY)
    for name, n in [
        *itertools.product(grids.GRIDS, FEW),
        *itertools.product(("uniform", "trailing"), (MANY - 1, MANY)),
    ]:
        grid, denoiser = made_grid(name, n), Counting(schedule)
        assert len(list(trajectory(sampler, denoiser, x, grid, noise=noise))) == n
        assert len(denoiser.times) == sampler.network_calls(grid), (name, n)
        # Churn raises the noise before it asks.
        assert denoiser.times[0] >= float(grid[0]) if sampler.stochastic else denoiser.times[0] == float(grid[0])
        assert min(denoiser.times) > 0


@members(FIXED)
def test_calls_are_declared_too_for_a_run_that_stops_early(sampler):
    denoiser, grid = Counting(FlowSchedule()), f64([0.9, 0.5, 0.2])
    sample(sampler, denoiser, torch.ones(1, 1), grid, noise=NoiseSource(0, [0]))
    assert len(denoiser.times) == sampler.network_calls(grid)


@members(MEMBERS)
def test_no_noise_is_drawn_on_the_way_to_clean_data(sampler):
    schedule, asked = LinearSchedule(), []

    def noise(like, t, s, draw=0):
        asked.append((float(t), float(s)))
        return torch.ones_like(like)

    grid = grids.uniform(5)
    sample(sampler, three(schedule), beginning(schedule, 1.0), grid, noise=noise)
    steps = {(float(t), float(s)) for t, s in zip(grid[:-2], grid[1:-1], strict=True)}
    assert set(asked) <= steps
    assert bool(asked) == sampler.stochastic


@members(MEMBERS)
def test_interleaved_runs_of_one_object_are_separate_runs(sampler):
    oracle, grid = three(FIELD["cosine"]), grids.uniform(9)
    xs = [beginning(oracle.schedule, 1.0), 0.5 * beginning(oracle.schedule, 1.0)]

    def run(x, seed):
        return trajectory(sampler, oracle, x, grid, noise=NoiseSource(seed, range(len(x))))

    alone = [[s.x for s in run(x, seed)] for seed, x in enumerate(xs)]
    together = list(zip(*(run(x, seed) for seed, x in enumerate(xs)), strict=True))
    for step, pair in enumerate(together):
        for which in (0, 1):
            assert torch.equal(pair[which].x, alone[which][step])


@members(MEMBERS)
def test_a_sample_does_not_depend_on_its_batch(sampler):
    oracle, grid = three(FIELD["linear"]), grids.uniform(12)
    indices = [4, 0, 17]

    def run(chosen):
        noise = NoiseSource(3, chosen)
        return sample(sampler, oracle, noise.start((2,), torch.float64), grid, noise=noise)

    together = run(indices)
    for i, index in enumerate(indices):
        torch.testing.assert_close(run([index])[0], together[i], rtol=1e-12, atol=1e-12)


@members(STOCHASTIC)
def test_fresh_noise_is_used_and_asked_for(sampler):
    oracle, grid = three(FIELD["linear"]), grids.uniform(5)
    x = beginning(oracle.schedule, 1.0)
    first, second = (sample(sampler, oracle, x, grid, noise=NoiseSource(seed, range(len(x)))) for seed in (0, 1))
    assert float((first - second).abs().min()) > 0
    with pytest.raises(BadOption, match="NoiseSource"):
        sample(sampler, oracle, x, grid)


def response(sampler, oracle, grid, spread=None):
    """Mean and standard deviation of the end of a run for Gaussian data, exactly: every sampler is affine there.

    It starts from noise about 0 of the given standard deviation, sigma(t) by default.

    A batch has one with nothing, one from a unit start, and one for each noise that is asked for with that noise alone at 1.
    """
    places = {}

    def unit(like, t, s, draw=0):
        drawn = torch.zeros_like(like)
        drawn[places.setdefault((float(t), float(s), draw), len(places) + 2)] = 1
        return drawn

    # No sampler draws more often than it asks.
    x = torch.zeros(2 + (sampler.network_calls(grid) if sampler.stochastic else 0), 1, dtype=torch.float64)
    x[1] = 1
    end = sample(sampler, oracle, x, grid, noise=unit)[:, 0]
    parts = end[1:] - end[0]
    parts[0] *= oracle.schedule.sigma(grid[0]) if spread is None else spread
    return float(end[0]), float(parts.square().sum().sqrt())


@functools.cache
def normal(schedule):
    """N(1, 0.5^2)."""
    return Quick(f64([[1.0]]), f64([0.5]), f64([1.0]), schedule)


@members(SAMPLING)
@pytest.mark.parametrize(
    ("name", "allowed"), [("linear", 0.010), ("cosine", 0.010), ("flow", 0.010), ("variance exploding", 0.02)]
)
def test_mean_and_spread_of_a_normal_distribution_come_back(sampler, name, allowed):
    mean, std = response(sampler, normal(FIELD[name]), grids.uniform(400))
    # What is left: the start (N(0, sigma^2), not the noised data; 1/80 for variance exploding) and the 400 steps.
    # Annealed Langevin, which has no order, walks off the noise of the levels above only in the limit of many steps.
    assert math.hypot(mean - 1, std - 0.5) <= (allowed if sampler.order else 2 * allowed)


@schedules_of_the_field
@members(
    [s for s in STOCHASTIC if s in SAMPLING and s.order and s.registered_name not in ("churn", "predictor_corrector")]
)
def test_what_is_drawn_is_right_to_the_order_stated_but_to_2_at_most(schedule, sampler):
    """Of runs that begin with the right spread; churn and correctors draw the same amount however short the steps are."""
    oracle = normal(schedule)

    def off(n):
        grid = 0.95 - 0.9 * even(n)
        first, last = (
            math.hypot(0.5 * float(schedule.alpha(t)), float(schedule.sigma(t))) for t in (grid[0], grid[-1])
        )
        return abs(response(sampler, oracle, grid, first)[1] / last - 1)

    coarse, fine = off(150), off(450)
    # Where the rule is of third order, its error and that of the noise cancel in part while steps are long.
    assert math.log(coarse / fine, 3) > min(sampler.order, 2) - (0.25 if sampler.order < 3 else 0.4)
    assert fine < (0.04 if sampler.order == 1 else 1e-3)


@members([s for s in STOCHASTIC if s in SAMPLING])
def test_stochastic_samplers_reproduce_a_mixture(sampler):
    oracle, n, generator = three(FIELD["cosine"]), 4000, torch.Generator().manual_seed(5)

    def noise(like, t, s, draw=0):
        return torch.randn(like.shape, dtype=like.dtype, generator=generator)

    found = sample(
        sampler, oracle, noise(torch.empty(n, 2, dtype=torch.float64), 1, 1), grids.uniform(150), noise=noise
    )
    shares = oracle.log_weights.exp()[:, None]
    mean = (shares * oracle.means).sum(0)
    std = ((shares * (oracle.means**2 + oracle.stds[:, None] ** 2)).sum(0) - mean**2).sqrt()
    # 4.5 standard errors, and 0.02 for the 150 steps.
    torch.testing.assert_close(found.mean(0), mean, rtol=0, atol=4.5 * float(std.max()) / n**0.5 + 0.01)
    torch.testing.assert_close(found.std(0), std, rtol=0, atol=4.5 * float(std.max()) / n**0.5 + 0.02)
    # The skewed shares of the components too: the share of samples right of each component's neighbourhood.
    inside = ((found - oracle.means[2]).norm(dim=1) < 0.6).double().mean()
    assert float(inside) == pytest.approx(near_the_third(oracle), abs=4.5 * (0.25 / n) ** 0.5)


@functools.cache
def near_the_third(oracle):
    """The share of the mixture that lies within 0.6 of the mean of its third component."""
    return float(((oracle.sample(40_000) - oracle.means[2]).norm(dim=1) < 0.6).double().mean())


# The step that all deterministic samplers share


def test_toward_is_finite_and_right_at_both_ends(schedule):
    x_0, eps = torch.randn(2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def at(t):
        return schedule.alpha(f64(t)) * x_0 + schedule.sigma(f64(t)) * eps

    for t, s in ((1.0, 0.999), (1.0, 0.5), (1.0, 0.0), (0.5, 0.2), (0.01, 0.0), (1e-9, 0.0)):
        torch.testing.assert_close(toward(x_0, at(t), schedule, t, s), at(s), rtol=1e-9, atol=1e-9)
        if s == 0:
            assert torch.equal(toward(x_0, at(t), schedule, f64(t), f64(s)), x_0)


# Options


@members(MEMBERS)
def test_samplers_are_values(sampler):
    assert samplers.build(samplers.describe(sampler)) == sampler
    assert hash(samplers.build(samplers.describe(sampler))) == hash(sampler)
    assert vars(sampler).keys() == samplers.schema(sampler.registered_name).keys()
    with pytest.raises(AttributeError):
        sampler.order = 7
    assert isinstance(samplers, Registry)


# Grids


@pytest.mark.parametrize("name", grids.GRIDS)
def test_grids_fall_from_their_start_to_exactly_0(schedule, name):
    discrete = name in ("trailing", "leading", "linspace")
    for n in COUNTS:
        if discrete and (schedule.num_steps is None or n > schedule.num_steps):
            with pytest.raises(BadOption, match="levels"):
                grids.make_grid(name, n, schedule)
            continue
        grid = grids.make_grid(name, n, schedule)
        assert grid.shape == (n + 1,)
        assert grid.dtype == torch.float64
        assert bool((grid.diff() < 0).all())
        assert float(grid[-1]) == 0
        if name == "leading":
            assert float(grid[-2]) == 1 / schedule.num_steps
            assert float(grid[0]) == (math.floor(schedule.num_steps * (n - 1) / n) + 1) / schedule.num_steps
        else:
            assert float(grid[0]) == 1
        for start in () if discrete or n > 300 else (0.6, 1e-5):
            later = grids.make_grid(name, n, schedule, start=start)
            assert later.shape == (n + 1,)
            assert float(later[0]) == start
            assert float(later[-1]) == 0
            assert bool((later.diff() < 0).all())


@pytest.mark.parametrize("name", grids.GRIDS)
@pytest.mark.parametrize("n", [0, -3])
def test_a_grid_without_steps_is_refused(name, n):
    with pytest.raises(BadOption, match="steps: must be at least 1"):
        grids.make_grid(name, n, LinearSchedule())


@pytest.mark.parametrize("name", ["trailing", "leading", "linspace"])
def test_more_steps_than_levels_are_refused(name):
    with pytest.raises(BadOption, match="at most 1000 steps, got 1001"):
        grids.make_grid(name, 1001, LinearSchedule())
    assert (grids.make_grid(name, 1000, LinearSchedule()) * 1000).round().tolist() == list(range(1000, -1, -1))


@pytest.mark.parametrize(
    "times",
    [
        [1.0],
        [[1.0, 0.0]],
        [1.0, 0.5, 0.5, 0.0],
        [0.2, 0.8, 0.0],
        [1.1, 0.0],
        [1.0, -0.1],
        [math.nan, 0.0],
        [1.0, math.nan, 0.0],
    ],
)
def test_times_that_do_not_fall_are_refused(times):
    with pytest.raises((BadOption, ShapeError)):
        sample(samplers.build("euler"), Counting(FlowSchedule()), torch.ones(1, 1), f64(times))
