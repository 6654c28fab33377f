"""A learned weight of each noise level: how wrong the network must be expected to be there."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..process.base import Schedule
from ..randomness import address, normal, uniform

CHANNELS = 128
LARGEST_LOG_SNR = 20.0


class LearnedUncertainty(nn.Module):
    r"""u(t), the logarithm of the loss to be expected at a time; it weighs each time so that all give gradients of one size.

    .. math:: L' = L / e^{u(t)} + u(t)

    is smallest at :math:`u = \ln E[L | t]`, where every time has the loss 1. A linear function of random waves of
    ln(sigma / alpha) / 4, which begins as 0: the plain loss.

    Args:
        schedule: Of the model.

    References:
        Analyzing and Improving the Training Dynamics of Diffusion Models (Karras et al., 2024), Equations 14 to 16 and
        Section B.2, https://arxiv.org/abs/2312.02696
    """

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.schedule = schedule
        self.weight = nn.Parameter(torch.zeros(CHANNELS))
        self.frequencies: Tensor
        self.phases: Tensor
        frequencies = 2 * math.pi * normal(address(0, "uncertainty frequencies"), range(CHANNELS))[:, 0]
        phases = 2 * math.pi * uniform(address(0, "uncertainty phases"), range(CHANNELS))[:, 0]
        self.register_buffer("frequencies", torch.from_numpy(frequencies).float(), persistent=False)
        self.register_buffer("phases", torch.from_numpy(phases).float(), persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        """u at times of shape (B,), float64, on any device: shape (B,), float32."""
        level = (-self.schedule.log_snr(t)).clamp(-LARGEST_LOG_SNR, LARGEST_LOG_SNR) / 8
        level = level.to(self.weight)
        waves = math.sqrt(2) * torch.cos(level[:, None] * self.frequencies + self.phases)  # (B, channels)
        return waves @ self.weight
