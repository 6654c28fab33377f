"""Weightings: how much the error at each time counts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from ..options import Checked, option
from ..process.base import Schedule
from ..registry import Registry


class Weighting(Checked, ABC):
    """A frozen dataclass: a weight for the squared error of the network's own prediction."""

    @abstractmethod
    def weight(self, t: Tensor, schedule: Schedule, c_out: Tensor, sigma_data: float) -> Tensor:
        """The weight of each sample.

        An error e of the network is an error c_out e of the clean data, so that a weight w on the latter is w c_out^2 here.

        Args:
            t: Shape (B,), float64, at least t_min.
            schedule: Of the model.
            c_out: What the network's output is multiplied by, shape (B,), float64.
            sigma_data: Standard deviation of the data.

        Returns:
            Shape (B,), float64.
        """


def snr(t: Tensor, schedule: Schedule) -> Tensor:
    """The signal-to-noise ratio alpha^2 / sigma^2, shape of t."""
    return (schedule.alpha(t) / schedule.sigma(t)) ** 2


weightings: Registry[Weighting] = Registry("weighting")


@weightings.register("uniform")
@dataclass(frozen=True)
class UniformWeighting(Weighting):
    """Plain mean squared error of whatever the network predicts."""

    def weight(self, t: Tensor, schedule: Schedule, c_out: Tensor, sigma_data: float) -> Tensor:
        """1; see `Weighting.weight`."""
        return torch.ones_like(c_out)


@weightings.register("snr")
@dataclass(frozen=True)
class SNRWeighting(Weighting):
    """The error of the clean data times the signal-to-noise ratio: the plain error of the noise, for any prediction."""

    def weight(self, t: Tensor, schedule: Schedule, c_out: Tensor, sigma_data: float) -> Tensor:
        """See `Weighting.weight`."""
        return snr(t, schedule) * c_out**2


@weightings.register("min_snr")
@dataclass(frozen=True)
class MinSNRWeighting(Weighting):
    """The signal-to-noise ratio, cut at gamma, so that low noise does not outweigh the rest.

    References:
        Efficient Diffusion Training via Min-SNR Weighting Strategy (Hang et al., 2023), Section 3.4,
        https://arxiv.org/abs/2303.09556
    """

    gamma: float = option(5.0, help="largest weight on the error of the clean data", low=1e-6)

    def weight(self, t: Tensor, schedule: Schedule, c_out: Tensor, sigma_data: float) -> Tensor:
        """See `Weighting.weight`."""
        return snr(t, schedule).clamp(max=self.gamma) * c_out**2


@weightings.register("edm")
@dataclass(frozen=True)
class EDMWeighting(Weighting):
    """SNR + 1 / sigma_data^2 on the error of the clean data: every time has the same weight at the start of training.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), Table 1,
        https://arxiv.org/abs/2206.00364
    """

    def weight(self, t: Tensor, schedule: Schedule, c_out: Tensor, sigma_data: float) -> Tensor:
        """See `Weighting.weight`."""
        return (snr(t, schedule) + sigma_data**-2) * c_out**2
