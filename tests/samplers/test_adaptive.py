"""Steps whose length the error chooses, against another integrator and closed forms."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from unnoise.denoisers.base import Denoiser
from unnoise.denoisers.oracle import GaussianMixtureOracle
from unnoise.errors import SamplingDiverged, ToleranceNotMet
from unnoise.nn.mlp import MLP, MLPConfig
from unnoise.process.cosine import CosineSchedule
from unnoise.process.flow import FlowSchedule
from unnoise.process.linear import LinearSchedule
from unnoise.process.variance_exploding import VarianceExplodingSchedule
from unnoise.samplers import _embedded, grids
from unnoise.samplers._embedded import Problem, Tolerance, between
from unnoise.samplers.adaptive import AdaptiveSampler
from unnoise.samplers.base import sample, samplers, trajectory
from unnoise.samplers.ddim import DDIMSampler

SCHEDULES = [
    LinearSchedule(),
    CosineSchedule(),
    FlowSchedule(),
    VarianceExplodingSchedule(),
    LinearSchedule(10, 0.01, 0.6),
]
on_schedules = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: f"{type(s).__name__} {s.num_steps}")


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


def mixture(schedule):
    means = f64([[1.0, 0.3], [-0.8, 0.6], [0.1, -1.1]])
    return GaussianMixtureOracle(means, f64([0.5, 0.7, 0.4]), f64([0.5, 0.2, 0.3]), schedule, [0, 1, 1])


def beginning(schedule, batch=4):
    x = torch.randn(batch, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    one = torch.ones((), dtype=torch.float64)
    return (schedule.alpha(one) ** 2 * 0.8 + schedule.sigma(one) ** 2).sqrt() * x


def exact(oracle, x, t, s):
    """Where the ODE leads by scipy, in the time of flow matching."""
    means, stds, weights = oracle.means.numpy(), oracle.stds.numpy(), oracle.log_weights.exp().numpy()
    (a, u), (a_s, u_s) = (
        [float(f(f64(time))) for f in (oracle.schedule.alpha, oracle.schedule.sigma)] for time in (t, s)
    )

    def slope(k, flat):
        z = flat.reshape(-1, 1, 2)
        variance = (1 - k) ** 2 * stds**2 + k**2
        offset = z - (1 - k) * means
        logits = np.log(weights) - np.log(variance) - (offset**2).sum(-1) / (2 * variance)
        share = np.exp(logits - logits.max(1, keepdims=True))
        share = (share / share.sum(1, keepdims=True))[..., None]
        eps, x_0 = k / variance[:, None] * offset, means + ((1 - k) * stds**2 / variance)[:, None] * offset
        return (share * (eps - x_0)).sum(1).ravel()

    span = u / (a + u), u_s / (a_s + u_s)
    solved = solve_ivp(slope, span, (x / (a + u)).numpy().ravel(), method="DOP853", rtol=1e-12, atol=1e-12)
    return torch.from_numpy(solved.y[:, -1].reshape(-1, 2) * (a_s + u_s))


class Recorded(Denoiser):
    """Keeps the batch size and the times of every call."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.schedule, self.sizes, self.times = inner, inner.schedule, [], []

    def forward(self, x_t, t, cond=None):
        assert t.shape == (len(x_t),)
        self.sizes.append(len(x_t))
        self.times.append(t)
        return self.inner(x_t, t, cond)


def last(sampler, oracle, x, grid, **options):
    *_, step = trajectory(sampler, oracle, x, grid, **options)
    return step


# The rule itself


def test_the_pair_has_its_orders():
    """The coefficients satisfy the order conditions of Butcher up to order 5, and the embedded ones up to order 4."""
    c, b = np.array(_embedded._NODES), np.array([*_embedded._STAGES[6], 0.0])
    a = np.array([[*row, *[0.0] * (7 - len(row))] for row in _embedded._STAGES])
    lower = b - np.array(_embedded._ERROR)
    np.testing.assert_allclose(a.sum(1), c, atol=1e-14)
    for weights, order in ((b, 5), (lower, 4)):
        for power in range(order):
            assert weights @ c**power == pytest.approx(1 / (power + 1), abs=1e-14)
        assert weights @ a @ c == pytest.approx(1 / 6, abs=1e-14)
        assert weights @ a @ c**2 == pytest.approx(1 / 12, abs=1e-14)
        assert weights @ a @ a @ c == pytest.approx(1 / 24, abs=1e-14)
        assert (weights * c) @ a @ c == pytest.approx(1 / 8, abs=1e-14)
    assert b @ a @ a @ a @ c == pytest.approx(1 / 120, abs=1e-14)
    assert lower @ c**4 != pytest.approx(1 / 5, abs=1e-4)


def one_step(h):
    """The error of a single step of y' = y cos k from k = 0.3, at its end and in its middle."""
    problem = Problem(lambda k, y, rows: k.cos()[:, None] * y, 0.3, 2.0, Tolerance(1e3, 1e3))
    begin = problem.start(f64([[1.0]]))
    made = problem.advance(begin._replace(step=f64([h])), 0.3 + h / 2)
    assert float(made.k) == pytest.approx(0.3 + h)
    solution = lambda k: math.exp(math.sin(k) - math.sin(0.3))
    return abs(float(made.y) - solution(0.3 + h)), abs(float(between(made, 0.3 + h / 2)) - solution(0.3 + h / 2))


def test_the_error_of_a_step_falls_at_order_6_and_between_its_ends_at_order_5():
    lengths = np.array([0.4, 0.2, 0.1])
    errors = np.log(np.array([one_step(h) for h in lengths]))
    slopes = np.polyfit(np.log(lengths), errors, 1)[0]
    assert slopes[0] == pytest.approx(6, abs=0.4)
    assert slopes[1] == pytest.approx(5, abs=0.4)


def test_each_group_of_numbers_keeps_the_tolerance_by_itself():
    def slope(k, y, rows):  # one number that turns fast, among many that rest
        return torch.cat([torch.zeros_like(y[:, :-1]), 40 * torch.cos(40 * k)[:, None]], 1)

    def error(groups):
        problem = Problem(slope, 0.0, 1.0, Tolerance(1e-6, 1e-6), groups)
        return abs(float(problem.advance(problem.start(torch.zeros(1, 1001).double()), 1.0).y[0, -1]) - math.sin(40))

    assert error((1000, 1)) < 1e-5
    assert error((1001,)) > 5 * error((1000, 1))


# The sampler


@on_schedules
def test_the_error_falls_with_the_tolerance_down_to_exactly_clean_data(schedule):
    oracle, x = mixture(schedule), beginning(schedule)
    found = exact(oracle, x, 1.0, 0.0)
    for tolerance in (1e-3, 1e-5, 1e-7, 1e-9):
        end = sample(AdaptiveSampler(tolerance, tolerance), oracle, x, grids.uniform(3))
        assert float((end - found).abs().max()) < 20 * tolerance


@on_schedules
def test_what_stands_at_the_times_of_the_grid_is_the_solution_there(schedule):
    oracle, x, grid = mixture(schedule), beginning(schedule), f64([1.0, 0.8, 0.45, 0.1, 1e-4, 0.0])
    for stepped, s in zip(trajectory(AdaptiveSampler(1e-7, 1e-7), oracle, x, grid), grid[1:], strict=True):
        torch.testing.assert_close(stepped.x, exact(oracle, x, 1.0, float(s)), rtol=1e-5, atol=1e-5)


def test_the_grid_costs_no_evaluations_and_calls_are_those_reported():
    oracle, x = mixture(FlowSchedule()), beginning(FlowSchedule())
    ends = []
    for n in (1, 7, 300):
        recorded = Recorded(oracle)
        end = last(AdaptiveSampler(), recorded, x, grids.uniform(n))
        assert end.state.calls == len(recorded.sizes)
        assert int(end.state.evaluations.sum()) == sum(recorded.sizes)
        assert min(float(t.min()) for t in recorded.times) > 0
        ends.append(end)
    assert all(torch.equal(end.state.evaluations, ends[0].state.evaluations) for end in ends)
    for end in ends:
        torch.testing.assert_close(end.x, ends[0].x, rtol=1e-14, atol=1e-14)
    assert AdaptiveSampler().network_calls(grids.uniform(5)) is None


def test_a_run_takes_tens_of_evaluations():
    end = last(AdaptiveSampler(), mixture(LinearSchedule()), beginning(LinearSchedule()), grids.uniform(20))
    assert 20 <= int(end.state.evaluations.min()) <= int(end.state.evaluations.max()) <= 60


def test_finished_samples_leave_the_batch():
    """Two tight clusters make a hard middle ground: a sample there takes more steps than one far out."""
    oracle = GaussianMixtureOracle(f64([[-1.0], [1.0]]), f64([0.02, 0.02]), f64([0.5, 0.5]), FlowSchedule())
    recorded = Recorded(oracle)
    end = last(AdaptiveSampler(1e-6, 1e-6), recorded, f64([[1e-3], [2.0], [2.1]]), grids.uniform(1))
    assert int(end.state.evaluations[0]) > int(end.state.evaluations[1])
    assert recorded.sizes[0] == 3
    assert recorded.sizes[-1] == 1
    assert int(end.state.evaluations.max()) <= end.state.calls <= int(end.state.evaluations.sum())


def test_a_sample_and_its_steps_do_not_depend_on_the_batch_or_its_condition():
    oracle, x = mixture(CosineSchedule()), beginning(CosineSchedule())
    label = torch.tensor([0, 1, 2, 0])
    together = last(AdaptiveSampler(), oracle, x, grids.uniform(4), cond={"label": label})
    for i in range(4):
        alone = last(AdaptiveSampler(), oracle, x[i : i + 1], grids.uniform(4), cond={"label": label[i : i + 1]})
        torch.testing.assert_close(alone.x[0], together.x[i], rtol=1e-12, atol=1e-12)
        assert int(alone.state.evaluations) == int(together.state.evaluations[i])


def test_the_preview_is_the_estimate_of_clean_data():
    oracle, x = mixture(FlowSchedule()), beginning(FlowSchedule())
    steps = list(trajectory(AdaptiveSampler(), oracle, x, grids.uniform(50)))
    away = [float((step.denoised - steps[-1].x).abs().max()) for step in steps]
    assert away[-1] == 0
    assert away[25] < away[0]
    reached = steps[10].state.reached
    t = float(reached.k[0])  # the time of the flow schedule is k itself
    expected = oracle(reached.y[:1], f64(t))
    torch.testing.assert_close(steps[10].denoised[:1], expected, rtol=1e-10, atol=1e-10)


def test_who_moves_x_between_two_steps_begins_anew_there():
    oracle, x, sampler = mixture(FlowSchedule()), beginning(FlowSchedule()), AdaptiveSampler(1e-8, 1e-8)
    first = sampler.step(oracle, x, f64(1.0), f64(0.5), None)
    moved = first.x + 0.3
    second = sampler.step(oracle, moved, f64(0.5), f64(0.0), first.state)
    torch.testing.assert_close(second.x, exact(oracle, moved, 0.5, 0.0), rtol=1e-6, atol=1e-6)
    assert second.state.calls > first.state.calls


def test_a_step_changes_nothing_that_it_was_given():
    oracle, x, sampler = mixture(FlowSchedule()), beginning(FlowSchedule()), AdaptiveSampler()
    first = sampler.step(oracle, x, f64(1.0), f64(0.5), None)
    once, again = (sampler.step(oracle, first.x, f64(0.5), f64(0.2), first.state) for _ in range(2))
    assert torch.equal(once.x, again.x)
    assert once.state.calls == again.state.calls


def test_a_run_that_begins_or_ends_next_to_clean_data():
    oracle, x = mixture(FlowSchedule()), beginning(FlowSchedule())
    for t, s in ((1e-5, 0.0), (1e-5, 1e-6), (0.5, 1e-6)):
        end = sample(AdaptiveSampler(), oracle, x, f64([t, s]))
        torch.testing.assert_close(end, exact(oracle, x, t, s), rtol=1e-3, atol=1e-3)


def test_pictures_and_32_bits_keep_their_shape_and_type():
    class Shrinks(Denoiser):
        schedule = LinearSchedule()

        def forward(self, x_t, t, cond=None):
            return 0.5 * x_t

    end = last(AdaptiveSampler(), Shrinks(), torch.randn(2, 3, 4, 4), grids.uniform(2))
    assert end.x.shape == end.denoised.shape == (2, 3, 4, 4)
    assert end.x.dtype == torch.float32


def test_a_network_is_sampled_as_by_many_small_steps():
    from unnoise.denoisers.edm import EDMDenoiser

    torch.manual_seed(0)
    denoiser = EDMDenoiser(MLP((2,), config=MLPConfig(width=16)), FlowSchedule())
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(1))
    end = sample(AdaptiveSampler(1e-5, 1e-5), denoiser, x, grids.uniform(1))
    torch.testing.assert_close(end, sample(DDIMSampler(), denoiser, x, grids.uniform(3000)), rtol=3e-3, atol=3e-3)


# A tolerance that cannot be met


def test_more_calls_than_allowed_end_with_what_was_reached():
    oracle, x = mixture(FlowSchedule()), beginning(FlowSchedule())
    with pytest.raises(
        ToleranceNotMet, match=r"rtol=1e-10, atol=1e-10 was not reached: 56 network calls led only to t = 0\.\d+"
    ):
        sample(AdaptiveSampler(1e-10, 1e-10, max_calls=60), oracle, x, grids.uniform(3))


def test_steps_too_short_for_the_numbers_end_with_what_was_reached():
    """y' = y^2 has no solution beyond k = 1."""
    problem = Problem(lambda k, y, rows: y * y, 0.0, 2.0, Tolerance(1e-6, 1e-6))
    with pytest.raises(ToleranceNotMet, match=r"steps that became too short .* led only to k = (1|0\.9999)"):
        problem.advance(problem.start(torch.ones(1, 1).double()), 2.0)


def test_numbers_of_32_bits_that_cannot_hold_the_tolerance_say_so():
    oracle, x = mixture(FlowSchedule()), beginning(FlowSchedule()).float()
    with pytest.raises(ToleranceNotMet, match=r"rtol=1e-12.* led only to t = 0\.\d+ .*calls made.*32 bits"):
        sample(AdaptiveSampler(1e-12, 1e-12, max_calls=500), oracle, x, grids.uniform(3))


@pytest.mark.parametrize("from_time", [2.0, 0.6])
def test_a_network_that_answers_with_nan_is_told_apart(from_time):
    class Broken(Denoiser):
        schedule = FlowSchedule()

        def forward(self, x_t, t, cond=None):
            return torch.where((t < from_time)[:, None], torch.nan, 0.5 * x_t)

    with pytest.raises(SamplingDiverged, match=r"NaN or infinity at t = "):
        sample(AdaptiveSampler(), Broken(), torch.ones(2, 2), grids.uniform(3))


def test_it_is_a_member():
    assert samplers.build({"name": "adaptive", "rtol": 1e-6}) == AdaptiveSampler(rtol=1e-6)
