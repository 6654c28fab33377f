"""Times as numbers that may take any value, and the method that moves them."""

import pytest
import torch

from unnoise.denoisers.oracle import GaussianMixtureOracle
from unnoise.errors import BadOption
from unnoise.process.cosine import CosineSchedule
from unnoise.process.flow import FlowSchedule
from unnoise.process.linear import LinearSchedule
from unnoise.process.variance_exploding import VarianceExplodingSchedule
from unnoise.randomness import NoiseSource
from unnoise.samplers.arc import ArcSampler
from unnoise.samplers.base import sample
from unnoise.samplers.dpmpp_2m import DPMSolverPPSampler
from unnoise.samplers.euler import EulerSampler
from unnoise.samplers.grids import make_grid
from unnoise.tuning.problem import converged
from unnoise.tuning.search import frontier, grids_for, search, solvers, spend
from unnoise.tuning.times import improve, to_grid, to_parameters

SCHEDULES = [LinearSchedule(), CosineSchedule(), FlowSchedule(), VarianceExplodingSchedule()]


def mixture(schedule):
    means = torch.tensor([[0.7, 0.3], [-0.6, 0.5], [0.1, -0.8], [-0.3, -0.2]])
    stds, weights = torch.tensor([0.1, 0.2, 0.15, 0.05]), torch.tensor([0.3, 0.2, 0.3, 0.2])
    return GaussianMixtureOracle(means, stds, weights, schedule)


def problem(schedule=None, n=400, tolerance=1e-4):
    schedule = LinearSchedule() if schedule is None else schedule
    start = float(schedule.sigma(torch.ones((), dtype=torch.float64))) * NoiseSource(0, range(n)).start(
        (2,), torch.float64
    )
    return converged(mixture(schedule), start, tolerance=tolerance)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("name", ["uniform", "angle", "karras"])
def test_times_survive_being_written_as_numbers(schedule, name):
    grid = make_grid(name, 9, schedule, sigma_data=0.5)
    back = to_grid(to_parameters(grid, schedule, 0.5), schedule, 0.5)
    torch.testing.assert_close(back, grid, rtol=1e-6, atol=2e-7)
    assert float(back[0]) == 1
    assert float(back[-1]) == 0


def test_any_numbers_are_falling_times():
    numbers = torch.tensor([3.0, -2.0, 0.5, 1.0, -4.0], dtype=torch.float64)
    for schedule in SCHEDULES:
        grid = to_grid(numbers, schedule, 0.5)
        assert bool((grid.diff() < 0).all())
        torch.testing.assert_close(to_grid(numbers + 7, schedule, 0.5), grid, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_the_reference_is_where_the_exact_flow_leads(schedule):
    found = problem(schedule, 50)
    finest = sample(
        ArcSampler(4, 5),
        found.denoiser,
        found.start,
        make_grid("angle", 500, schedule, sigma_data=found.denoiser.sigma_data),
    )
    assert float((found.end - finest).square().mean().sqrt()) < 5e-4
    assert found.uncertainty <= 1e-4 * found.denoiser.sigma_data


@pytest.mark.parametrize(
    ("sampler", "ratio"),
    [(EulerSampler(), 0.96), (ArcSampler(), 0.5), (DPMSolverPPSampler(), 0.7)],
    ids=["euler", "arc", "2M"],
)
def test_moved_times_are_better_on_noises_that_they_have_not_seen(sampler, ratio):
    whole = problem(n=800)
    fit, held_out = whole.part(0, 400), whole.part(400, 800)
    grid = make_grid("angle", 8, LinearSchedule(), sigma_data=whole.denoiser.sigma_data)
    fitted, moved, left = improve(fit, sampler, grid)
    assert left == pytest.approx(fit.distance(fitted, moved), rel=1e-9)
    assert moved.shape == grid.shape
    assert (fitted == sampler) is not bool(sampler.tunable)
    assert held_out.distance(fitted, moved) < ratio * held_out.distance(sampler, grid)


def test_moving_stops_at_a_minimum():
    whole = problem(n=200)
    grid = make_grid("angle", 5, LinearSchedule(), sigma_data=whole.denoiser.sigma_data)
    _, moved, left = improve(whole, EulerSampler(), grid, rounds=40)
    numbers = to_parameters(moved, LinearSchedule(), whole.denoiser.sigma_data)
    for i in range(5):
        for nudge in (-0.2, 0.2):
            other = numbers.clone()
            other[i] += nudge
            times = to_grid(other, LinearSchedule(), whole.denoiser.sigma_data)
            assert whole.distance(EulerSampler(), times) > 0.999 * left


def test_a_search_beats_every_fixed_grid_and_spends_no_more_than_the_budget():
    told = []
    found = search(problem(n=400), 6, budgets=(3,), progress=lambda *facts: told.append(facts))
    assert found.tuned.distance < 0.7 * found.table[0].distance
    assert found.fitted < 2 * found.tuned.distance
    assert found.tuned.calls == found.tuned.sampler.network_calls(found.tuned.times) <= 6
    assert all(c.calls <= 6 and c.distance >= found.table[0].distance for c in found.table)
    assert {c.sampler for c in found.table} <= set(solvers())
    assert len({(c.sampler, c.grid) for c in found.table}) == len(found.table) > 60
    assert {c.calls <= 3 for c in found.others} == {True}
    assert {what for what, _, _ in told} == {"solvers and grids", "moving times", "fitting weights", "other budgets"}
    front = frontier([*found.table, *found.others])
    assert [c.calls for c in front] == sorted({c.calls for c in front})
    assert all(a.distance > b.distance for a, b in zip(front, front[1:], strict=False))
    assert front[-1].distance == found.table[0].distance


def test_the_longest_grid_within_the_budget_is_taken():
    whole = problem(n=4)
    heun = next(s for s in solvers() if s.registered_name == "heun")
    assert len(spend(whole, heun, "uniform", 9)) - 1 == 5
    assert len(spend(whole, heun, "uniform", 8)) - 1 == 4
    assert len(spend(whole, ArcSampler(), "angle", 8)) - 1 == 8
    assert "trailing" in grids_for(LinearSchedule())
    assert "trailing" not in grids_for(FlowSchedule())


def test_what_cannot_be_tuned_is_refused():
    with pytest.raises(BadOption, match="at least 2 samples and 2 calls"):
        search(problem(n=4), 1)
    with pytest.raises(BadOption, match="do not converge: after 768 steps"):
        problem(n=4, tolerance=1e-15)
