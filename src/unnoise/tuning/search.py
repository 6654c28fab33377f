"""The search: every solver on every grid, the times of the best ones moved, and weights fitted where a solver has them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ..errors import BadOption, UnnoiseError
from ..process.base import Schedule
from ..samplers.base import Sampler, family, samplers
from ..samplers.grids import GRIDS, make_grid
from .problem import Problem
from .times import improve
from .weights import STAGES, fit_weights

WEIGHED = 2
"""How many solvers have their weights fitted."""

Progress = Callable[[str, int, int], None]
"""Told what is done, how many of it, and how many there are."""


@dataclass(frozen=True)
class Candidate:
    """A way to spend a budget of network calls, and how far its samples are from the converged ones.

    Args:
        sampler: How to step.
        grid: The grid's name, or "tuned".
        times: The times, from 1 to 0.
        calls: Network calls that a run makes, guidance not counted.
        distance: Root mean square distance to the converged ends; infinite where the run is lost.
    """

    sampler: Sampler
    grid: str
    times: Tensor
    calls: int
    distance: float

    @property
    def label(self) -> str:
        """The sampler and what it has other than its defaults, in one word."""
        described = samplers.describe(self.sampler)
        name = str(described.pop("name"))
        usual = samplers.describe(samplers.build(name))
        changed = [f"{key}={_short(value)}" for key, value in described.items() if value != usual[key]]
        return f"{name}({', '.join(changed)})" if changed else name


def _short(value: Any) -> str:
    if isinstance(value, list):
        return "fitted"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def solvers() -> list[Sampler]:
    """Every sampler that solves the flow with a number of calls that is known beforehand."""
    made = []
    for sampler in family():
        if not sampler.stochastic and sampler.order is not None and sampler not in made:
            made.append(sampler)
    return made


def grids_for(schedule: Schedule) -> list[str]:
    """The grids that a schedule has and that begin at t = 1."""
    discrete = ("trailing", "leading", "linspace")
    return [name for name in GRIDS if name not in discrete or (name == "trailing" and schedule.num_steps)]


def spend(problem: Problem, sampler: Sampler, grid: str, calls: int) -> Tensor | None:
    """The longest grid on which the sampler makes at most so many calls, shape (n + 1,); None where there is none."""
    denoiser = problem.denoiser
    for n in range(calls, 0, -1):
        try:
            times = make_grid(grid, n, denoiser.schedule, sigma_data=denoiser.sigma_data)
            sampler.check(denoiser, times)
        except UnnoiseError:
            return None
        made = sampler.network_calls(times)
        if made is None:
            return None
        if made <= calls:
            return times
    return None


def measure(
    problem: Problem, pairs: Iterable[tuple[Sampler, str]], calls: int, progress: Callable[[], None] = lambda: None
) -> list[Candidate]:
    """How far each solver on each grid stays from the converged ends, the nearest first.

    Args:
        problem: What is measured on.
        pairs: Solvers and names of grids.
        calls: The budget.
        progress: Called after each.
    """
    found = []
    for sampler, grid in pairs:
        times = spend(problem, sampler, grid, calls)
        if times is not None:
            made = sampler.network_calls(times)
            assert made is not None
            found.append(Candidate(sampler, grid, times, made, problem.distance(sampler, times)))
        progress()
    return sorted(found, key=lambda candidate: candidate.distance)


@dataclass(frozen=True)
class Found:
    """What a search has found.

    Args:
        tuned: The best, with times of its own.
        table: Every solver and grid at the budget, the nearest first, on the samples that nothing was fitted to.
        others: Every solver on its best grid, at other budgets.
        fitted: The distance of the tuned times on the samples that they were fitted to.
    """

    tuned: Candidate
    table: tuple[Candidate, ...]
    others: tuple[Candidate, ...]
    fitted: float


def search(
    problem: Problem,
    calls: int,
    budgets: Sequence[int] = (),
    finalists: int = 6,
    progress: Progress = lambda what, done, total: None,
) -> Found:
    """Finds solver, order, times and weights for a budget of network calls.

    Half of the samples are fitted to; the other half choose among the fixed grids and the few that were fitted to the end, by
    their times alone and by the weights of their steps too, and give the distances that are reported.

    Args:
        problem: What is measured on, two samples or more.
        calls: The budget, at least 2.
        budgets: Other budgets, for the table.
        finalists: How many solvers have their times moved.
        progress: Told how far it is.

    Raises:
        BadOption: There are too few samples, or no solver can be used.
    """
    count = len(problem.start)
    if count < 2 or calls < 2:
        raise BadOption(f"tuning needs at least 2 samples and 2 calls, got {count} and {calls}")
    fit, held_out = problem.part(0, count // 2), problem.part(count // 2, count)
    pairs = [(sampler, grid) for sampler in solvers() for grid in grids_for(problem.denoiser.schedule)]

    def counting(what: str, total: int) -> Callable[[], None]:
        done = iter(range(1, total + 1))
        progress(what, 0, total)
        return lambda: progress(what, next(done), total)

    table = measure(held_out, pairs, calls, counting("solvers and grids", len(pairs)))
    if not table or math.isinf(table[0].distance):
        raise BadOption("no solver reaches an end with this model")
    nearest: dict[Sampler, Candidate] = {}
    for candidate in table:
        nearest.setdefault(candidate.sampler, candidate)
    moved = _move(fit, held_out, list(nearest.values()), finalists, progress)
    others = [(budget, pair) for budget in budgets if budget != calls for pair in nearest.values()]
    step = counting("other budgets", len(others))
    more = [each for budget, pair in others for each in measure(held_out, [(pair.sampler, pair.grid)], budget, step)]
    return Found(moved, tuple(table), tuple(more), fit.distance(moved.sampler, moved.times))


def _move(fit: Problem, held_out: Problem, nearest: list[Candidate], finalists: int, progress: Progress) -> Candidate:
    """The best of the nearest solvers once they are fitted: the times of many a little, of a few to the end, then weights."""
    entered = [start for each in nearest[: 4 * finalists] for start in _starts(each)]
    total = len(entered) + finalists
    begun = []
    for k, (sampler, times) in enumerate(entered):
        progress("moving times", k, total)
        begun.append(improve(fit, sampler, times, rounds=3))
    begun.sort(key=lambda found: found[2])
    # A fit to few samples can go astray, so that the best fixed grid stands for election too.
    ended = [replace(nearest[0], grid="tuned")]
    for k, (sampler, times, _) in enumerate(begun[:finalists]):
        progress("moving times", len(entered) + k, total)
        ended.append(_judged(held_out, *improve(fit, sampler, times, rounds=25)[:2]))
    progress("moving times", total, total)
    return min([*ended, *_weigh(fit, held_out, nearest, progress)], key=lambda candidate: candidate.distance)


def _weigh(fit: Problem, held_out: Problem, nearest: list[Candidate], progress: Progress) -> list[Candidate]:
    """The nearest weighable solvers, after every stage of the fit of their weights."""
    ended = []
    entered = [each for each in nearest if each.sampler.weighable][:WEIGHED]
    total = len(entered) * len(STAGES)
    for k, each in enumerate(entered):
        stages = fit_weights(fit, each.sampler, each.times)
        for done in range(len(STAGES)):
            progress("fitting weights", k * len(STAGES) + done, total)
            ended.append(_judged(held_out, *next(stages)))
    progress("fitting weights", total, total)
    return ended


def _judged(held_out: Problem, sampler: Sampler, times: Tensor) -> Candidate:
    calls = sampler.network_calls(times)
    assert calls is not None
    return Candidate(sampler, "tuned", times, calls, held_out.distance(sampler, times))


def _starts(candidate: Candidate) -> list[tuple[Sampler, Tensor]]:
    """A candidate, and again with its tunable options half as large again: the descent is local."""
    starts = [(candidate.sampler, candidate.times)]
    for name in candidate.sampler.tunable:
        larger = 1.5 * getattr(candidate.sampler, name)
        starts.append((replace(candidate.sampler, **{name: larger}), candidate.times))  # type: ignore[type-var]
    return starts


def frontier(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Those that no other candidate beats with as few calls: the Pareto front, fewest calls first."""
    front: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda c: (c.calls, c.distance)):
        if not front or candidate.distance < front[-1].distance:
            if front and front[-1].calls == candidate.calls:
                continue
            front.append(candidate)
    return front
