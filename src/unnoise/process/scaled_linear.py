"""The scaled-linear schedule of latent diffusion."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..options import option
from .base import schedules
from .tabulated import DiscreteSchedule


@schedules.register("scaled_linear")
@dataclass(frozen=True)
class ScaledLinearSchedule(DiscreteSchedule):
    """Betas whose square roots rise linearly, as Stable Diffusion uses them.

    References:
        High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022), its released code,
        https://arxiv.org/abs/2112.10752
    """

    num_steps: int = option(1000, help="number of levels", low=1, high=1_000_000)
    beta_start: float = option(0.00085, help="variance that the first step adds", low=1e-12, high=0.999)
    beta_end: float = option(0.012, help="variance that the last step adds", low=1e-12, high=0.999)

    @cached_property
    def betas(self) -> Tensor:
        """The variance that each step adds, shape (num_steps,), float64."""
        return torch.linspace(self.beta_start**0.5, self.beta_end**0.5, self.num_steps, dtype=torch.float64) ** 2
