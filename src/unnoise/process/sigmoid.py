"""The sigmoid schedule: variance preserving, slow near both ends."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..errors import BadOption
from ..options import option
from .base import schedules
from .tabulated import DiscreteSchedule


@schedules.register("sigmoid")
@dataclass(frozen=True)
class SigmoidSchedule(DiscreteSchedule):
    """Alpha-bar falls along a sigmoid, rescaled to run from exactly 1 at clean data to exactly 0 at the last level.

    References:
        Scalable Adaptive Computation for Iterative Generation (Jabri et al., 2022), Figure 8, https://arxiv.org/abs/2212.11972
    """

    num_steps: int = option(1000, help="number of levels", low=1, high=1_000_000)
    start: float = option(-3.0, help="where on the sigmoid clean data stands", low=-20.0, high=20.0)
    end: float = option(3.0, help="where on the sigmoid pure noise stands; more than start", low=-20.0, high=20.0)
    tau: float = option(1.0, help="temperature: larger is closer to a straight line", low=0.05, high=20.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.end <= self.start:
            raise BadOption(f"end: must be more than start ({self.start}), got {self.end}")

    @cached_property
    def alpha_bars(self) -> Tensor:
        """Alpha-bar of each level, shape (num_steps,), float64; the last is 0."""
        t = torch.arange(1, self.num_steps + 1, dtype=torch.float64) / self.num_steps
        high, low = (1 / (1 + math.exp(end / self.tau)) for end in (self.start, self.end))
        value = torch.sigmoid(-(t * (self.end - self.start) + self.start) / self.tau)
        bars = (value - low) / (high - low)
        bars[-1] = 0.0
        return bars
