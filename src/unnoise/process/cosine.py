"""The cosine schedule of Improved DDPM."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..options import option
from .base import schedules
from .tabulated import DiscreteSchedule


@schedules.register("cosine")
@dataclass(frozen=True)
class CosineSchedule(DiscreteSchedule):
    """Alpha-bar falls as a squared cosine; betas are cut at `max_beta`, as in the paper, so that the last level keeps some signal.

    References:
        Improved Denoising Diffusion Probabilistic Models (Nichol & Dhariwal, 2021), Equation 17,
        https://arxiv.org/abs/2102.09672
    """

    num_steps: int = option(1000, help="number of levels", low=1, high=1_000_000)
    s: float = option(0.008, help="offset that keeps the first betas from being too small", low=0.0, high=1.0)
    max_beta: float = option(0.999, help="largest variance that a step may add", low=1e-3, high=0.999999)

    @cached_property
    def betas(self) -> Tensor:
        """The variance that each step adds, shape (num_steps,), float64."""
        t = torch.linspace(0, 1, self.num_steps + 1, dtype=torch.float64)
        f = torch.cos((t + self.s) / (1 + self.s) * math.pi / 2) ** 2
        return (1 - f[1:] / f[:-1]).clamp(max=self.max_beta)
