r"""The times of a run, and the weights of its steps, moved until its ends are nearest to the converged ones.

The times are written as angles :math:`\theta = \operatorname{atan2}(\sigma, \alpha s)` that fall from the start to 0, and those
as logarithms of their distances, which may take any value; options of the sampler that are tunable join them, as logarithms too,
and what is added to the weights of the steps, as it is. The ends are smooth functions of these few numbers, and their squared
distances are lowered by `descend`; its derivatives are differences, one run for each number.

References:
    S4S: Solving for a Diffusion Model Solver (Frankel et al., 2025), Section 3, https://arxiv.org/abs/2502.17423 (there with
    gradients through the run, here with differences, so that any sampler and any model will do)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import BadOption, SamplingDiverged
from ..process.base import Schedule
from ..samplers.base import Sampler, trajectory
from ..samplers.coordinates import arc
from .descent import descend
from .path import Path
from .problem import Problem, root_mean_square


def to_parameters(grid: Tensor, schedule: Schedule, sigma_data: float) -> Tensor:
    """The logarithms of the distances in angle, shape (n,)."""
    angles = torch.tensor([arc(schedule, float(t), sigma_data).k for t in grid], dtype=torch.float64)
    return (-angles.diff()).clamp(min=1e-9).log()


def to_grid(parameters: Tensor, schedule: Schedule, sigma_data: float, start: float = 1.0) -> Tensor:
    """The inverse, from the start to exactly 0, shape (n + 1,); the distances are scaled to fill the way."""
    shares = parameters.softmax(0)
    whole = arc(schedule, start, sigma_data).k
    angles = whole * (1 - shares.cumsum(0)[:-1])
    times = schedule.time_of(-2 * torch.log(torch.tan(angles) * sigma_data))
    ends = torch.tensor([start], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    return torch.cat([ends[0], times, ends[1]])


def _falls(grid: Tensor) -> bool:
    return bool(grid.isfinite().all()) and bool((grid.diff() < 0).all())


@dataclass(frozen=True)
class _Numbers:
    """A sampler and its times, written as numbers that may take any value.

    Args:
        problem: Whose schedule and data it is.
        sampler: What has the options that are not written.
        start: The first time.
        steps: n.
        slopes: How many of each step have weights of their own, 0 for no weights at all.
        path: The trajectories, where residuals are those of the whole way.
    """

    problem: Problem
    sampler: Sampler
    start: float
    steps: int
    slopes: int
    path: Path | None = None

    @property
    def _widths(self) -> list[int]:
        return [1 + min(i + 1, self.slopes) for i in range(self.steps)] if self.slopes else []

    def write(self, grid: Tensor) -> Tensor:
        """The numbers, shape (p,)."""
        denoiser = self.problem.denoiser
        options = [math.log(getattr(self.sampler, name)) for name in self.sampler.tunable]
        added: list[float] = []
        given = getattr(self.sampler, "weights", ())
        for i, width in enumerate(self._widths):
            row = list(given[i][:width]) if given else []
            added += row + [0.0] * (width - len(row))
        others = torch.tensor([*options, *added], dtype=torch.float64)
        return torch.cat([to_parameters(grid, denoiser.schedule, denoiser.sigma_data), others])

    def read(self, parameters: Tensor) -> tuple[Sampler, Tensor]:
        """The sampler and the times, shape (n + 1,).

        Raises:
            BadOption: An option is out of its range.
        """
        denoiser, names = self.problem.denoiser, self.sampler.tunable
        times, options, weights = parameters.split([self.steps, len(names), sum(self._widths)])
        found: dict[str, object] = {name: float(value.exp()) for name, value in zip(names, options, strict=True)}
        if self.slopes:
            found["weights"] = tuple(tuple(row.tolist()) for row in weights.split(self._widths))
        grid = to_grid(times, denoiser.schedule, denoiser.sigma_data, self.start)
        return replace(self.sampler, **found), grid  # type: ignore[type-var]

    def residual(self, parameters: Tensor) -> Tensor | None:
        """How far the ends are from the converged ones, shape (B, d); None where the run is none."""
        try:
            stepper, times = self.read(parameters)
        except BadOption:
            return None
        if not _falls(times):
            return None
        if self.path is not None:
            return self._on_the_way(stepper, times, self.path)
        ends = self.problem.run(stepper, times)
        return None if ends is None else (ends - self.problem.end).flatten(1)

    def _on_the_way(self, stepper: Sampler, times: Tensor, path: Path) -> Tensor | None:
        problem, apart = self.problem, []
        run = trajectory(stepper, problem.denoiser, problem.start, times, cond=problem.cond)
        try:
            for s, stepped in zip(times[1:].tolist(), run, strict=True):
                place = arc(path.schedule, s, path.spread)
                wanted = path.at(s) if s else problem.end / place.scale
                apart.append((stepped.x / place.scale - wanted).flatten(1))
        except SamplingDiverged:
            return None
        return path.spread * torch.cat(apart, 1)


def improve(
    problem: Problem,
    sampler: Sampler,
    grid: Tensor,
    rounds: int = 12,
    slopes: int = 0,
    cap: float = math.inf,
    path: Path | None = None,
    progress: Callable[[float], None] = lambda distance: None,
) -> tuple[Sampler, Tensor, float]:
    """Moves the times of a run, the sampler's tunable options, and the weights of its steps.

    Args:
        problem: What is measured on.
        sampler: How to step; deterministic.
        grid: Where to begin, from 1 to 0.
        rounds: Of the descent: as many runs for the derivatives as there are numbers, and a few to try.
        slopes: How many slopes of each step get weights of their own, besides x; 0 leaves the weights as they are.
        cap: From which mean squared distance of a sample on, in units of sigma_data^2, it counts less.
        path: The trajectories, where the run is to be near them all the way and not at its end alone.
        progress: Told the distance after every round.

    Returns:
        The sampler, the times, shape (n + 1,), and the root mean square distance that is left.
    """
    assert not slopes or sampler.weighable
    numbers = _Numbers(problem, sampler, float(grid[0]), len(grid) - 1, slopes, path)
    here = numbers.write(grid)
    left = numbers.residual(here)
    if left is None or len(grid) < 3:
        return sampler, grid, math.inf if left is None else root_mean_square(left)
    unit = problem.denoiser.sigma_data**2 * problem.end[0].numel()
    here = descend(numbers.residual, here, rounds, cap * unit, lambda left: progress(root_mean_square(left)))
    stepper, times = numbers.read(here)
    return stepper, times, problem.distance(stepper, times)
