"""Time densities: which times a model is trained on, and how often. Each is its quantile function."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import BadOption
from ..options import Checked, option
from ..process.base import Schedule
from ..registry import Registry
from .history import LossHistory


class TimeDensity(Checked, ABC):
    """A frozen dataclass: a distribution of times in [t_min, 1] of a schedule."""

    @abstractmethod
    def quantile(self, u: Tensor, schedule: Schedule) -> Tensor:
        """The times below which shares `u` of all times lie.

        Args:
            u: In (0, 1), any shape, float64.
            schedule: Of the model.

        Returns:
            Times in [t_min, 1], shape of u, float64.
        """

    def history(self, schedule: Schedule) -> LossHistory | None:
        """An empty memory of losses, for a density that follows them."""
        return None


time_densities: Registry[TimeDensity] = Registry("time density", "unnoise.objectives")


@time_densities.register("uniform")
@dataclass(frozen=True)
class UniformTimes(TimeDensity):
    """Every time alike; of a discrete schedule, every level alike, as DDPM trains."""

    def quantile(self, u: Tensor, schedule: Schedule) -> Tensor:
        """See `TimeDensity.quantile`."""
        if schedule.num_steps:
            return ((u * schedule.num_steps).floor() + 1).clamp(max=schedule.num_steps) / schedule.num_steps
        return schedule.t_min + (1 - schedule.t_min) * u


@time_densities.register("logit_normal")
@dataclass(frozen=True)
class LogitNormalTimes(TimeDensity):
    """The logit of t is normally distributed: the middle of the path is trained most.

    On a flow that is shifted the middle moves with it, to higher noise, as in Stable Diffusion 3.

    References:
        Scaling Rectified Flow Transformers for High-Resolution Image Synthesis (Esser et al., 2024), Equation 19,
        https://arxiv.org/abs/2403.03206
    """

    mean: float = option(0.0, help="mean of logit(t)", low=-20, high=20)
    std: float = option(1.0, help="standard deviation of logit(t)", low=1e-3, high=20)

    def quantile(self, u: Tensor, schedule: Schedule) -> Tensor:
        """See `TimeDensity.quantile`."""
        return torch.sigmoid(self.mean + self.std * torch.special.ndtri(u)).clamp(schedule.t_min, 1.0)


@time_densities.register("mode")
@dataclass(frozen=True)
class ModeTimes(TimeDensity):
    r"""The middle of the path is trained most, and every other time still as often as something: heavy tails.

    .. math:: t = 1 - u - s \left(\cos^2\left(\tfrac{\pi}{2} u\right) - 1 + u\right) \quad\text{for uniform } u.

    References:
        Scaling Rectified Flow Transformers for High-Resolution Image Synthesis (Esser et al., 2024), Equation 20,
        https://arxiv.org/abs/2403.03206
    """

    scale: float = option(
        1.29, help="s: above 0 the middle is trained more often, below 0 the ends; 0 is uniform", low=-1.0, high=1.75
    )

    def quantile(self, u: Tensor, schedule: Schedule) -> Tensor:
        """See `TimeDensity.quantile`."""
        t = u - self.scale * (torch.cos(math.pi / 2 * (1 - u)) ** 2 - u)
        return t.clamp(schedule.t_min, 1.0)


@time_densities.register("cosine_map")
@dataclass(frozen=True)
class CosineMapTimes(TimeDensity):
    """The times at which a straight path is as noisy as the cosine schedule is at times of which all are alike.

    References:
        Scaling Rectified Flow Transformers for High-Resolution Image Synthesis (Esser et al., 2024), Equation 21,
        https://arxiv.org/abs/2403.03206
    """

    def quantile(self, u: Tensor, schedule: Schedule) -> Tensor:
        """See `TimeDensity.quantile`."""
        angle = math.pi / 2 * u
        return (angle.sin() / (angle.sin() + angle.cos())).clamp(schedule.t_min, 1.0)


@time_densities.register("log_normal")
@dataclass(frozen=True)
class LogNormalTimes(TimeDensity):
    """ln(sigma / alpha) is normally distributed, as EDM trains.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), Table 1,
        https://arxiv.org/abs/2206.00364
    """

    mean: float = option(-1.2, help="mean of ln(sigma / alpha)", low=-20, high=20)
    std: float = option(1.2, help="standard deviation of ln(sigma / alpha)", low=1e-3, high=20)

    def quantile(self, u: Tensor, schedule: Schedule) -> Tensor:
        """See `TimeDensity.quantile`."""
        return schedule.time_of(-2 * (self.mean + self.std * torch.special.ndtri(u))).clamp(schedule.t_min, 1.0)


@time_densities.register("log_uniform")
@dataclass(frozen=True)
class LogUniformTimes(TimeDensity):
    """ln(sigma / alpha) is uniform between two noise levels: all scales of the data are trained alike."""

    low: float = option(0.01, help="lowest sigma / alpha", low=1e-6)
    high: float = option(20.0, help="highest sigma / alpha", low=1e-6)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.high <= self.low:
            raise BadOption(f"high: must be more than low ({self.low}), got {self.high}")

    def quantile(self, u: Tensor, schedule: Schedule) -> Tensor:
        """See `TimeDensity.quantile`."""
        low, high = torch.tensor([self.low, self.high], dtype=torch.float64).log()
        return schedule.time_of(-2 * (low + (high - low) * u)).clamp(schedule.t_min, 1.0)
