r"""Weightings: how much the error at each time counts.

Papers state a weight on the error of the clean data, of the noise or of v. They are one thing said three ways: the noise in x_t
is wrong by :math:`\sqrt{SNR}` times what the clean data is, and a network by :math:`1 / c_{out}` times. All weights are therefore
worked out for the clean data and multiplied by :math:`c_{out}^2`, so that a weighting means the same for every prediction. The
one exception is "uniform", the plain error of whatever the network predicts.
"""

from __future__ import annotations

import math
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

    Where a schedule ends without any signal, t = 1 has the weight 0 for v and for the clean data, as in the paper: what a
    sampler asks first is not learned there.

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


@weightings.register("snr_plus_one")
@dataclass(frozen=True)
class SNRPlusOneWeighting(Weighting):
    """SNR + 1 on the error of the clean data: the plain error of v on variance-preserving schedules.

    References:
        Progressive Distillation for Fast Sampling of Diffusion Models (Salimans & Ho, 2022), Section 4,
        https://arxiv.org/abs/2202.00512
    """

    def weight(self, t: Tensor, schedule: Schedule, c_out: Tensor, sigma_data: float) -> Tensor:
        """See `Weighting.weight`."""
        return (snr(t, schedule) + 1) * c_out**2


@weightings.register("truncated_snr")
@dataclass(frozen=True)
class TruncatedSNRWeighting(Weighting):
    """max(SNR, 1) on the error of the clean data: that of the noise or of the data, whichever counts more.

    References:
        Progressive Distillation for Fast Sampling of Diffusion Models (Salimans & Ho, 2022), Section 4,
        https://arxiv.org/abs/2202.00512
    """

    def weight(self, t: Tensor, schedule: Schedule, c_out: Tensor, sigma_data: float) -> Tensor:
        """See `Weighting.weight`."""
        return snr(t, schedule).clamp(min=1) * c_out**2


@weightings.register("soft_min_snr")
@dataclass(frozen=True)
class SoftMinSNRWeighting(Weighting):
    """SNR gamma / (SNR + gamma) on the error of the clean data: min-SNR without its kink.

    With gamma = 1 / sigma_data^2 it is 1 / (1 / SNR + sigma_data^2), which is 1 / (sigma^2 + sigma_data^2) where alpha is 1.

    References:
        Scalable High-Resolution Pixel-Space Image Synthesis with Hourglass Diffusion Transformers (Crowson et al., 2024),
        Section 3.4, https://arxiv.org/abs/2401.11605
    """

    gamma: float = option(4.0, help="the weight on the error of the clean data that low noise comes near to", low=1e-6)

    def weight(self, t: Tensor, schedule: Schedule, c_out: Tensor, sigma_data: float) -> Tensor:
        """See `Weighting.weight`."""
        ratio = snr(t, schedule)
        return ratio / (1 + ratio / self.gamma) * c_out**2


@weightings.register("p2")
@dataclass(frozen=True)
class P2Weighting(Weighting):
    """1 / (k + SNR)^gamma on the error of the noise: less for the last traces of noise, which nobody sees.

    References:
        Perception Prioritized Training of Diffusion Models (Choi et al., 2022), Equation 8, https://arxiv.org/abs/2204.00227
    """

    k: float = option(1.0, help="keeps the weight finite where little signal is left", low=1e-6)
    gamma: float = option(1.0, help="how far low noise is weighted down; 0 for the plain error of the noise", low=0)

    def weight(self, t: Tensor, schedule: Schedule, c_out: Tensor, sigma_data: float) -> Tensor:
        """See `Weighting.weight`."""
        ratio = snr(t, schedule)
        return ratio / (self.k + ratio) ** self.gamma * c_out**2


@weightings.register("sigmoid")
@dataclass(frozen=True)
class SigmoidWeighting(Weighting):
    """sigmoid(bias - ln SNR) on the error of the noise: a smooth step from high noise, which counts, to low noise.

    The papers weight by log-SNR, each value alike; together with times "log_uniform" this is their loss, and with other times it
    is multiplied by their density.

    References:
        Understanding Diffusion Objectives as the ELBO with Simple Data Augmentation (Kingma & Gao, 2023), Section 4,
            https://arxiv.org/abs/2303.00848
        Simpler Diffusion (SiD2) (Hoogeboom et al., 2024), Section 3.1, https://arxiv.org/abs/2410.19324
    """

    bias: float = option(2.0, help="the log-SNR at which the weight is one half", low=-50, high=50)

    def weight(self, t: Tensor, schedule: Schedule, c_out: Tensor, sigma_data: float) -> Tensor:
        """See `Weighting.weight`."""
        return math.exp(self.bias) * torch.sigmoid(schedule.log_snr(t) - self.bias) * c_out**2
