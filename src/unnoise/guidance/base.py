r"""What a guidance rule is, and the one wrapper that makes a denoiser of it.

The guidance scale g means uncond + g (cond - uncond) everywhere: 1 is off (the plain conditional model), 0 is unconditional,
and above 1 the sample is pushed towards what was asked for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..denoisers.base import Condition, Denoiser
from ..errors import BadOption
from ..options import Checked
from ..process.base import Schedule
from ..registry import Registry


class Guidance(Checked, ABC):
    """A frozen dataclass that says how predictions are combined."""

    neutral: ClassVar[dict[str, Any]]
    """The options with which it changes nothing."""
    from_null: ClassVar[bool] = True
    """Whether it pushes away from the null condition, where no negative one is given."""

    @abstractmethod
    def estimate(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, cond: Condition | None, negative: Condition | None
    ) -> tuple[Tensor, Tensor | None]:
        """The guided estimate of the clean data, and the variance fraction where one was learned.

        Args:
            denoiser: What is steered.
            x_t: Noisy data, shape (B, ...).
            t: Shape () or (B,).
            cond: What is asked for.
            negative: What to push away from; None is the null condition.
        """

    def network_calls(self, cond: Condition | None) -> int:
        """How many times the network is called for one estimate."""
        return 1

    def stepping(self, schedule: Schedule, t: float, s: float, kept: float | None) -> Guidance:
        """The rule for the calls of one step of a sampler: itself, unless it depends on where the step goes.

        Args:
            schedule: Alpha and sigma.
            t: Where the step begins.
            s: Where it ends.
            kept: How much of the noise found at t the step carries over, as a standard deviation; None where no number says it.

        Raises:
            IncompatibleParts: The rule cannot work with such a step.
        """
        return self

    def remember(self, cond: Condition | None) -> Condition | None:
        """A condition with what the denoisers that the rule holds make of it; see `Denoiser.remember`."""
        return cond

    def changing(self, change: Callable[[Denoiser], Denoiser]) -> Guidance:
        """The rule with a change made to every denoiser that it holds; itself where it holds none."""
        return self


class Guided(Denoiser):
    """A denoiser under a guidance rule.

    Args:
        denoiser: What is steered.
        guidance: The rule.
        negative: What to push away from, tensors of the batch's size; None is the null condition.
    """

    def __init__(self, denoiser: Denoiser, guidance: Guidance, negative: Condition | None = None) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.guidance = guidance
        self.negative = negative
        self.schedule = denoiser.schedule
        self.sigma_data = denoiser.sigma_data
        self.learns_variance = denoiser.learns_variance
        self.self_conditioned = denoiser.self_conditioned

    def forward(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        """The guided estimate; see `Denoiser.forward`."""
        return self.guidance.estimate(self.denoiser, x_t, t, cond, self.negative)[0]

    def with_variance(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> tuple[Tensor, Tensor | None]:
        """The guided estimate and the variance fraction of the conditional prediction."""
        return self.guidance.estimate(self.denoiser, x_t, t, cond, self.negative)

    def null_condition(self, batch: int, device: torch.device | None = None) -> Condition:
        """That of the steered denoiser."""
        return self.denoiser.null_condition(batch, device)

    def remember(self, cond: Condition | None) -> Condition | None:
        """With what the steered denoiser makes of it, and whatever helps to steer."""
        return self.guidance.remember(self.denoiser.remember(cond))

    def rows(self, index: Tensor) -> Guided:
        """With what is held for these samples, the negative condition among it; see `Denoiser.rows`."""
        negative = self.negative
        if negative is not None:
            negative = {name: value[index.to(value.device)] for name, value in negative.items()}
        held = self.guidance.changing(lambda denoiser: denoiser.rows(index))
        return self._with(self.denoiser.rows(index), held, negative)

    def recalling(self, estimate: Tensor) -> Guided:
        """All predictions are told the guided estimate; see `Denoiser.recalling`."""
        held = self.guidance.changing(lambda denoiser: denoiser.recalling(estimate))
        return self._with(self.denoiser.recalling(estimate), held, self.negative)

    def stepping(self, t: float, s: float, kept: float | None) -> Guided:
        """With the rule for this step; see `Denoiser.stepping`."""
        rule = self.guidance.stepping(self.schedule, t, s, kept)
        return self._with(self.denoiser.stepping(t, s, kept), rule, self.negative)

    def _with(self, denoiser: Denoiser, guidance: Guidance, negative: Condition | None) -> Guided:
        same = denoiser is self.denoiser and guidance is self.guidance and negative is self.negative
        return self if same else Guided(denoiser, guidance, negative)


guidances: Registry[Guidance] = Registry("guidance rule", "unnoise.guidance")


def positive(name: str, value: float) -> None:
    """Refuses an option that is 0 or below.

    Raises:
        BadOption: It is.
    """
    if not value > 0:
        raise BadOption(f"{name}: must be above 0, got {value}")
