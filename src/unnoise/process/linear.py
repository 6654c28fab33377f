"""The linear schedule of DDPM."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..options import option
from .base import schedules
from .tabulated import DiscreteSchedule


@schedules.register("linear")
@dataclass(frozen=True)
class LinearSchedule(DiscreteSchedule):
    """Betas that rise linearly.

    References:
        Denoising Diffusion Probabilistic Models (Ho et al., 2020), Section 4, https://arxiv.org/abs/2006.11239
    """

    num_steps: int = option(1000, help="number of levels", low=1, high=1_000_000)
    beta_start: float = option(1e-4, help="variance that the first step adds", low=1e-12, high=0.999)
    beta_end: float = option(0.02, help="variance that the last step adds", low=1e-12, high=0.999)

    @cached_property
    def betas(self) -> Tensor:
        """The variance that each step adds, shape (num_steps,), float64."""
        return torch.linspace(self.beta_start, self.beta_end, self.num_steps, dtype=torch.float64)
