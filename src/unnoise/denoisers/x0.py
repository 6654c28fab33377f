"""Prediction of the clean data itself."""

import torch
from torch import Tensor

from .base import Coefficients, PreconditionedDenoiser, denoisers


@denoisers.register("x0")
class X0Denoiser(PreconditionedDenoiser):
    """The network predicts the clean data in units of sigma_data."""

    def coefficients(self, t: Tensor) -> Coefficients:
        """0, sigma_data, unit variance, noise level."""
        zero = torch.zeros_like(t, dtype=torch.float64)
        return Coefficients(zero, zero + self.sigma_data, self.input_scale(t), self.schedule.noise_level(t))

    def target(self, x_0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """The clean data over sigma_data."""
        return x_0 / self.sigma_data
