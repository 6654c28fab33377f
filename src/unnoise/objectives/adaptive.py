"""Times that are drawn more often where the loss is large, so that its mean over a batch varies less."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..errors import BadOption
from ..options import option
from ..process.base import Schedule
from .history import LossHistory
from .times import TimeDensity, UniformTimes, time_densities

STRATA = 100
"""Equal shares of a density over continuous times, whose losses are told apart."""


@time_densities.register("adaptive")
@dataclass(frozen=True)
class AdaptiveTimes(TimeDensity):
    r"""Another density, whose equal shares are drawn as often as the root mean square of their last losses says.

    A loss at a time that is drawn p times as often counts 1 / p times, so that the expected loss and its gradient are those of
    the density itself; only their variance is smaller. Until `memory` losses of each share are known all are drawn alike. How
    often each is drawn changes every `refresh` steps and stands still in between, so that a run may stop and go on anywhere.

    References:
        Improved Denoising Diffusion Probabilistic Models (Nichol & Dhariwal, 2021), Section 3.3,
        https://arxiv.org/abs/2102.09672
    """

    base: TimeDensity = option(UniformTimes(), help="the density that losses are a mean over", one_of=time_densities)
    strata: int | None = option(
        None, help=f"shares that are told apart; none for each level of a chain, or {STRATA}", low=2, high=100_000
    )
    memory: int = option(10, help="last losses of each share that are looked at", low=1, high=10_000)
    uniform: float = option(0.001, help="share of samples that are drawn from all times alike", low=1e-6, high=1.0)
    refresh: int = option(100, help="steps after which it changes how often times are drawn", low=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.base, AdaptiveTimes):
            raise BadOption("base: expected a density that does not adapt itself")

    def quantile(self, u: Tensor, schedule: Schedule) -> Tensor:
        """That of the density underneath; see `TimeDensity.quantile`."""
        return self.base.quantile(u, schedule)

    def history(self, schedule: Schedule) -> LossHistory:
        """An empty memory of losses."""
        return LossHistory(self.strata or schedule.num_steps or STRATA, self.memory, self.uniform, self.refresh)
