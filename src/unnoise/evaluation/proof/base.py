"""Findings, and what all checks of samplers share: the schedules they are proven on, and the numbers they start from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from ...errors import IncompatibleParts
from ...process.base import Schedule
from ...process.cosine import CosineSchedule
from ...process.flow import FlowSchedule
from ...process.linear import LinearSchedule
from ...process.variance_exploding import VarianceExplodingSchedule
from ...randomness import NoiseSource
from ...samplers import grids
from ...samplers.base import Sampler
from .problems import MIXTURE, ExactDenoiser

FIELD: dict[str, Schedule] = {
    "linear": LinearSchedule(),
    "cosine": CosineSchedule(),
    "variance exploding": VarianceExplodingSchedule(),
    "flow": FlowSchedule(),
}


class Finding(NamedTuple):
    """What came out of one check."""

    shown: str
    """The number as a person reads it."""
    good: bool | None
    """Whether it is what was expected; None where the check says nothing of this sampler."""
    value: float | None = None
    note: str = ""
    """Where it was measured, and what was expected."""


NOTHING = Finding("-", None)
"""Of a check that does not apply."""


def schedules_for(sampler: Sampler, quick: bool) -> dict[str, Schedule]:
    """The schedules that a sampler is proven on, by name: all of them, or two if it is to be quick, but those that it refuses."""
    names = ("linear", "flow") if quick else FIELD
    return {name: FIELD[name] for name in names if is_willing(sampler, FIELD[name])}


def first_schedule(sampler: Sampler) -> Schedule:
    """The schedule of the checks that need only one."""
    return next(iter(schedules_for(sampler, quick=False).values()), FIELD["linear"])


def is_willing(sampler: Sampler, schedule: Schedule, grid: Tensor | None = None) -> bool:
    """Whether a sampler says that it can work with a schedule and a grid."""
    try:
        sampler.check(ExactDenoiser(MIXTURE, schedule), grids.uniform(3) if grid is None else grid)
    except IncompatibleParts:
        return False
    return True


def is_adaptive(sampler: Sampler) -> bool:
    """Whether it chooses its steps itself."""
    return sampler.network_calls(grids.uniform(3)) is None


@cache
def normal_numbers(batch: int) -> Tensor:
    """What runs start from, shape (batch, 3), float64."""
    return NoiseSource(7, range(batch)).start((3,), torch.float64)


def largest(found: Mapping[str, float]) -> tuple[str, float]:
    """The worst case and its number, NaN being the worst of all."""
    return max(found.items(), key=lambda item: math.inf if math.isnan(item[1]) else item[1])
