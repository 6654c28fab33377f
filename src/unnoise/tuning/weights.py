"""The weights of a run's steps, fitted in stages: along the way first, then at the ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

from torch import Tensor

from ..samplers.base import Sampler
from .path import follow
from .problem import Problem
from .times import improve


class Stage(NamedTuple):
    """A part of the fit.

    Args:
        slopes: How many slopes of each step have weights of their own.
        cap: From which mean squared distance on, in units of sigma_data^2, a sample counts less.
        rounds: Of the descent.
        on_the_way: Whether the whole way is fitted to, or its end alone.
    """

    slopes: int
    cap: float
    rounds: int
    on_the_way: bool


STAGES = (
    Stage(1, 1e-2, 4, True),
    Stage(2, 1e-2, 6, True),
    Stage(4, 1e-2, 9, True),
    Stage(4, 1e-1, 4, True),
    Stage(4, 1e-2, 3, False),
    Stage(4, 1e-1, 3, False),
    Stage(4, math.inf, 4, False),
)
"""The way is what all samples say something of, so that it comes first, with few numbers and then with more; that a small error
on it may send a sample elsewhere is what the caps leave out. The end is what is asked for, and where few samples decide, and
comes last. Each stage can be one too many: who has samples that were not fitted to lets them choose."""


def fit_weights(
    problem: Problem,
    sampler: Sampler,
    grid: Tensor,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[tuple[Sampler, Tensor]]:
    """Fits the weights of a weighable sampler, and its times.

    Args:
        problem: Whose trajectories are fitted to.
        sampler: How to step; weighable.
        grid: Where to begin, from 1 to 0.
        progress: Told the stages done, and how many there are.

    Yields:
        The sampler and the times, shape (n + 1,), after every stage.
    """
    path = follow(problem)
    for k, stage in enumerate(STAGES):
        progress(k, len(STAGES))
        way = path if stage.on_the_way else None
        sampler, grid, _ = improve(problem, sampler, grid, stage.rounds, stage.slopes, stage.cap, way)
        yield sampler, grid
    progress(len(STAGES), len(STAGES))
