"""A discrete schedule, rescaled so that no signal is left at its last level."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from ..errors import BadOption
from ..options import option
from .base import Schedule, schedules
from .linear import LinearSchedule
from .tabulated import DiscreteSchedule


@schedules.register("zero_terminal")
@dataclass(frozen=True)
class ZeroTerminalSchedule(DiscreteSchedule):
    """Another discrete schedule with zero terminal SNR, as `schedule.zero_terminal_snr()` gives it, for recipes.

    Args:
        schedule: The schedule to rescale.

    Raises:
        BadOption: It has no levels.

    References:
        Common Diffusion Noise Schedules and Sample Steps are Flawed (Lin et al., 2024), Algorithm 1,
        https://arxiv.org/abs/2305.08891
    """

    schedule: Schedule = option(LinearSchedule(), help="the discrete schedule to rescale", one_of=schedules)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.schedule, DiscreteSchedule):
            name = type(self.schedule).__name__
            raise BadOption(f"schedule: expected a discrete schedule such as linear or scaled_linear, got {name}")

    @property
    def num_steps(self) -> int:  # type: ignore[override]
        """The number of levels."""
        assert self.schedule.num_steps is not None
        return self.schedule.num_steps

    @cached_property
    def alpha_bars(self) -> Tensor:
        """Alpha-bar of each level, shape (num_steps,), float64; the last is 0."""
        assert isinstance(self.schedule, DiscreteSchedule)
        return self.schedule.zero_terminal_snr().alpha_bars
