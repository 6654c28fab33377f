r"""The times of a run, moved until its ends are nearest to the converged ones.

The times are written as angles :math:`\theta = \operatorname{atan2}(\sigma, \alpha s)` that fall from the start to 0, and those
as logarithms of their distances, which may take any value; options of the sampler that are tunable join them, as logarithms too.
The ends are smooth functions of these few numbers, and the sum of squared distances is lowered by the method of Levenberg and
Marquardt; its derivatives are differences, one run for each number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from ..errors import BadOption
from ..process.base import Schedule
from ..samplers.base import Sampler
from ..samplers.coordinates import arc
from .problem import Problem, root_mean_square

NUDGE = 0.02
"""Of a logarithm, for a difference quotient."""


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


def improve(
    problem: Problem,
    sampler: Sampler,
    grid: Tensor,
    rounds: int = 12,
    progress: Callable[[float], None] = lambda distance: None,
) -> tuple[Sampler, Tensor, float]:
    """Moves the times of a run, and the sampler's tunable options.

    Args:
        problem: What is measured on.
        sampler: How to step; deterministic.
        grid: Where to begin, from 1 to 0.
        rounds: Of Levenberg's and Marquardt's method, each n runs for the derivatives and a few to try.
        progress: Told the distance after every round.

    Returns:
        The sampler, the times, shape (n + 1,), and the root mean square distance that is left.
    """
    schedule, spread, start = problem.denoiser.schedule, problem.denoiser.sigma_data, float(grid[0])
    n = len(grid) - 1

    def settings(parameters: Tensor) -> tuple[Sampler, Tensor]:
        fitted = {name: float(value.exp()) for name, value in zip(sampler.tunable, parameters[n:], strict=True)}
        return replace(sampler, **fitted), to_grid(parameters[:n], schedule, spread, start)  # type: ignore[type-var]

    def residual(parameters: Tensor) -> Tensor | None:
        try:
            stepper, times = settings(parameters)
        except BadOption:
            return None
        ends = problem.run(stepper, times) if _falls(times) else None
        return None if ends is None else (ends - problem.end).double().flatten()

    options = torch.tensor([math.log(getattr(sampler, name)) for name in sampler.tunable], dtype=torch.float64)
    here = torch.cat([to_parameters(grid, schedule, spread), options])
    left = residual(here)
    if left is None or n < 2:
        return sampler, grid, math.inf if left is None else root_mean_square(left)
    damping = 1e-2
    for _ in range(rounds):
        columns = []
        for i in range(len(here)):
            nudged = here.clone()
            nudged[i] += NUDGE
            ahead = residual(nudged)
            columns.append(torch.zeros_like(left) if ahead is None else (ahead - left) / NUDGE)
        found = _try(residual, here, left, torch.stack(columns, 1), damping)
        if found is None:
            break
        before, (here, left, damping) = root_mean_square(left), found
        progress(root_mean_square(left))
        if root_mean_square(left) > 0.998 * before:
            break
    stepper, times = settings(here)
    return stepper, times, root_mean_square(left)


def _try(
    residual: Callable[[Tensor], Tensor | None], here: Tensor, left: Tensor, jacobian: Tensor, damping: float
) -> tuple[Tensor, Tensor, float] | None:
    """A step downhill: the new place, what is left there, and the next damping; None where none is found."""
    normal, slope = jacobian.T @ jacobian, jacobian.T @ left
    scale = normal.diagonal().mean().clamp(min=1e-30)
    for _ in range(7):
        step = torch.linalg.solve(normal + damping * scale * torch.eye(len(here), dtype=torch.float64), slope)
        there = here - step * min(1.0, 1.0 / float(step.abs().max().clamp(min=1e-30)))
        ahead = residual(there)
        if ahead is not None and bool(ahead.square().sum() < left.square().sum()):
            return there, ahead, max(damping / 5, 1e-6)
        damping *= 4
    return None
