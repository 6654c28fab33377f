"""Autoguidance: push away from a weaker version of the same model, instead of from no condition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ..denoisers.base import Condition, Denoiser
from ..options import option
from .base import Guidance, guidances
from .helped import Helped


@guidances.register("autoguidance")
@dataclass(frozen=True)
class AutoGuidance(Helped):
    r"""Pushes away from a weaker version of the model, asked for the same; also where nothing is asked for.

    .. math:: D_{weak} + g (D - D_{weak})

    The weaker model makes the errors of the better one, only larger: it is smaller, or was trained for less long, on the same
    data. Samples do not move away from other labels, as in classifier-free guidance, but each to where the better model is surer. A
    negative condition is what the weaker model is asked for instead; the better model itself as the weaker one, with the null
    condition, is classifier-free guidance.

    References:
        Guiding a Diffusion Model with a Bad Version of Itself (Karras et al., 2024), Equation 5, https://arxiv.org/abs/2406.02507
    """

    neutral = {"scale": 1.0}
    helper = "weak"

    weak: str | Denoiser | None = option(None, help="the weaker model: its folder, or from Python its denoiser")
    scale: float = option(1.0, help="1 is the better model alone, 0 the weaker one, above 1 pushes away from it", low=0)
    sha256: str = option("", help="hash that the weaker model must have; samples carry it; any if empty")

    def network_calls(self, cond: Condition | None) -> int:
        """1 of each model."""
        return 1

    def changing(self, change: Callable[[Denoiser], Denoiser]) -> Guidance:
        """With a change made to the weaker model; see `Guidance.changing`."""
        changed = change(self.weak) if isinstance(self.weak, Denoiser) else self.weak
        return self if changed is self.weak or changed is None else self.holding(changed)

    def remember(self, cond: Condition | None) -> Condition | None:
        """With what the weaker model makes of it; see `Guidance.remember`."""
        return self.weak.remember(cond) if isinstance(self.weak, Denoiser) else cond

    def estimate(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, cond: Condition | None, negative: Condition | None
    ) -> tuple[Tensor, Tensor | None]:
        """See `Guidance.estimate`."""
        strong, fraction = denoiser.with_variance(x_t, t, cond)
        if self.scale == 1:
            return strong, fraction
        weak = self.network()(x_t, t, cond if negative is None else negative)
        return weak + self.scale * (strong - weak), fraction
