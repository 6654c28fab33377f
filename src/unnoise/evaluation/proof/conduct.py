"""How a sampler behaves: the calls it makes, where its runs begin and end, and that samples and runs do not touch each other."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

from ...errors import BadOption
from ...process.base import Schedule, schedules
from ...process.linear import LinearSchedule
from ...randomness import NoiseSource
from ...samplers import grids
from ...samplers.base import Sampler, sample, trajectory
from .base import NOTHING, Finding, first_schedule, is_adaptive, is_willing, largest, normal_numbers
from .problems import MIXTURE, POINT, ROUND, CheapDenoiser, Data, ExactDenoiser, SteadyNoise, start


def calls(sampler: Sampler, quick: bool = False) -> Finding:
    """Network calls made, against those that `network_calls` states, for step counts and grids of every kind."""
    if is_adaptive(sampler):
        return Finding("adaptive", None, None, "how many it makes shows only on the way")
    schedule, total, tried = first_schedule(sampler), 0, 0
    x = torch.ones(1, 1, dtype=torch.float64)
    for what, grid in _runs(schedule, quick).items():
        if not is_willing(sampler, schedule, grid):
            continue
        denoiser, stated = CheapDenoiser(schedule), sampler.network_calls(grid)
        steps = sum(1 for _ in trajectory(sampler, denoiser, x, grid, noise=SteadyNoise()))
        made = len(denoiser.times)
        total, tried = total + made, tried + 1
        if made != stated or steps != len(grid) - 1:
            note = f"{made:,} calls in {steps:,} steps for {what}; expected the {stated} calls that it states"
            return Finding(f"{made:,}", False, made, note)
    if not tried:
        return NOTHING
    return Finding(f"{total:,}", True, total, f"as stated, in {tried} runs of 1 to 1,000 steps")


@cache
def _runs(schedule: Schedule, quick: bool) -> dict[str, Tensor]:
    """Grids of all kinds for few steps, and even ones for many."""
    found = {"2 steps that stop early": torch.tensor([0.9, 0.5, 0.2], dtype=torch.float64)}
    for n in (1, 2, 3, 7, 13, 1000) if quick else (1, 2, 3, 7, 13, 300, 999, 1000):
        for name in grids.GRIDS if n <= 13 else ("uniform",):
            if schedule.num_steps or name not in ("trailing", "leading", "linspace"):
                found[f"{n:,} steps of the grid {name}"] = grids.make_grid(name, n, schedule)
    return found


def ends(sampler: Sampler, quick: bool = False) -> Finding:
    """How far runs of few steps end from where they must, on every schedule that there is.

    Where clean data is a single point, the last step to t = 0 is exact for samplers that extrapolate noise or data, from any
    number of steps; those along the angle of signal and noise are exact for round normal data instead, and one of the two is
    enough. On the way: the first call is at the start, none is at t = 0, no noise is drawn into clean data, and from pure noise
    everything is finite, in float32 too.
    """
    known: dict[str, Schedule] = {name: each for name, each in _every_schedule().items() if is_willing(sampler, each)}
    if not known:
        return NOTHING
    for name, schedule in known.items():
        for n in FEW:
            wrong = _wrong_on_the_way(sampler, schedule, n)
            if wrong:
                return Finding("wrong", False, None, f"{wrong} (on {name}, {n} steps)")
    missed = []
    for data in (POINT,) if sampler.stochastic else (POINT, ROUND):
        found = {f"{name}, {n} steps": _missed(sampler, data, s, n) for name, s in known.items() for n in FEW}
        missed.append(largest(found))
    where, worst = min(missed, key=lambda item: item[1])
    note = f"the largest distance from where it must end, on {where}; expected at most {NEAR:g}"
    return Finding(f"{worst:.0e}" if worst else "0", worst <= NEAR, worst, note)


FEW = (1, 2, 3, 20)
NEAR = 1e-9


def _missed(sampler: Sampler, data: Data, schedule: Schedule, n: int) -> float:
    """How far a run ends from clean data that is one point, or normal about 0."""
    x = start(data, schedule, 1.0, normal_numbers(2))
    end = sample(sampler, ExactDenoiser(data, schedule), x, grids.uniform(n), noise=SteadyNoise())
    return float((end - start(data, schedule, 0.0, normal_numbers(2))).abs().max())


def _wrong_on_the_way(sampler: Sampler, schedule: Schedule, n: int) -> str:
    denoiser, noise = ExactDenoiser(MIXTURE, schedule), SteadyNoise()
    x = start(MIXTURE, schedule, 1.0, normal_numbers(2).float())
    found = sample(sampler, denoiser, x, grids.uniform(n), noise=noise)
    first, least = denoiser.times[0] if denoiser.times else math.nan, min(denoiser.times, default=math.nan)
    if found.dtype != x.dtype or found.shape != x.shape:
        return f"expected {x.dtype} of shape {tuple(x.shape)}, got {found.dtype} of shape {tuple(found.shape)}"
    if not abs(first - 1) < 1e-12:
        return f"expected the first call at the start, t = 1, got {first:g}"
    if not least > 0:
        return "expected no call at t = 0, where nothing is left to ask"
    if any(s <= 0 for _, s in noise.asked):
        return "expected no noise to be drawn on the way to clean data"
    return ""


def _every_schedule() -> dict[str, Schedule]:
    found: dict[str, Schedule] = {
        "linear without terminal signal": LinearSchedule().zero_terminal_snr(),
        "ten levels": LinearSchedule(10, 0.01, 0.6),
    }
    for name in schedules:
        try:
            found[name] = schedules.build(name)
        except BadOption:  # one that cannot be made without options
            continue
    return found


def batch(sampler: Sampler, quick: bool = False) -> Finding:
    """How much a sample changes with the others of its batch."""
    schedule = first_schedule(sampler)
    denoiser, grid = ExactDenoiser(MIXTURE, schedule), grids.uniform(12)

    def run(indices: list[int]) -> Tensor:
        noise = NoiseSource(3, indices)
        x = start(MIXTURE, schedule, 1.0, noise.start((3,), torch.float64))
        return sample(sampler, denoiser, x, grid, noise=noise)

    indices = [4, 0, 17]
    together, alone = run(indices), torch.cat([run([index]) for index in indices])
    return _difference(together, alone, 1e-12, "between a sample in a batch of 3 and alone")


def interleaved(sampler: Sampler, quick: bool = False) -> Finding:
    """How much a run changes when another run of the same object is made step by step beside it: not by a bit."""
    schedule = first_schedule(sampler)
    denoiser = ExactDenoiser(MIXTURE, schedule)

    def run(which: int) -> Iterator[Tensor]:
        noise = NoiseSource(which, range(3))
        x = start(MIXTURE, schedule, 1.0, noise.start((3,), torch.float64))
        return (stepped.x for stepped in trajectory(sampler, denoiser, x, grids.uniform((9, 12)[which]), noise=noise))

    alone = [torch.stack(list(run(which))) for which in (0, 1)]
    pairs = list(itertools.zip_longest(run(0), run(1)))
    beside = [torch.stack([pair[which] for pair in pairs if pair[which] is not None]) for which in (0, 1)]
    return _difference(torch.cat(beside), torch.cat(alone), 0.0, "between a run beside another and alone")


def _difference(found: Tensor, wanted: Tensor, allowed: float, what: str) -> Finding:
    worst = float((found - wanted).abs().max())
    note = f"the largest difference {what}; expected {f'at most {allowed:g}' if allowed else 'none'}"
    return Finding(f"{worst:.0e}" if worst else "0", worst <= allowed, worst, note)
