r"""What a guidance rule is, and the one wrapper that makes a denoiser of it.

The guidance scale g means uncond + g (cond - uncond) everywhere: 1 is off (the plain conditional model), 0 is unconditional,
and above 1 the sample is pushed towards what was asked for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..denoisers.base import Condition, Denoiser
from ..options import Checked
from ..registry import Registry


class Guidance(Checked, ABC):
    """A frozen dataclass that says how predictions are combined."""

    neutral: ClassVar[dict[str, Any]]
    """The options with which it changes nothing."""

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
        """With what the steered denoiser makes of it."""
        return self.denoiser.remember(cond)

    def rows(self, index: Tensor) -> Guided:
        """With what is held for these samples, the negative condition among it; see `Denoiser.rows`."""
        denoiser, negative = self.denoiser.rows(index), self.negative
        if negative is None:
            return self if denoiser is self.denoiser else Guided(denoiser, self.guidance)
        negative = {name: value[index.to(value.device)] for name, value in negative.items()}
        return Guided(denoiser, self.guidance, negative)

    def recalling(self, estimate: Tensor) -> Guided:
        """All predictions are told the guided estimate; see `Denoiser.recalling`."""
        if not self.self_conditioned:
            return self
        return Guided(self.denoiser.recalling(estimate), self.guidance, self.negative)


guidances: Registry[Guidance] = Registry("guidance rule", "unnoise.guidance")
