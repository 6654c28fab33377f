"""Classifier-free guidance: push the conditional prediction away from the unconditional one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..denoisers.base import Condition, Denoiser
from ..errors import BadOption
from ..options import option
from ..shapes import over
from .base import Guidance, guidances
from .pair import ask_both, unwanted_condition


@guidances.register("classifier_free")
@dataclass(frozen=True)
class ClassifierFreeGuidance(Guidance):
    r"""Pushes away from what the model makes when asked for nothing; both predictions in one batched network call.

    .. math:: D = D_\varnothing + g (D_c - D_\varnothing)

    References:
        Classifier-Free Diffusion Guidance (Ho & Salimans, 2022), https://arxiv.org/abs/2207.12598 (g here is 1 + w there)
        rescale: Common Diffusion Noise Schedules and Sample Steps are Flawed (Lin et al., 2024), Section 3.4
        interval: Applying Guidance in a Limited Interval (Kynkäänniemi et al., 2024), https://arxiv.org/abs/2404.07724
    """

    neutral = {"scale": 1.0, "rescale": 0.0, "interval": (0.0, 1.0)}

    scale: float = option(
        1.0, help="1 is the plain conditional model, 0 unconditional, above 1 pushes towards the condition", low=0
    )
    rescale: float = option(
        0.0, help="how far the estimate's spread is brought back to the conditional one's", low=0, high=1
    )
    interval: tuple[float, float] = option(
        (0.0, 1.0), help="times between which guidance acts; scale 1 elsewhere", low=0, high=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.interval[0] > self.interval[1]:
            raise BadOption(f"interval: expected (low, high) with low at most high, got {self.interval}")

    def network_calls(self, cond: Condition | None) -> int:
        """1: both predictions come from one batched call."""
        return 1

    def estimate(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, cond: Condition | None, negative: Condition | None
    ) -> tuple[Tensor, Tensor | None]:
        """See `Guidance.estimate`."""
        acts = self._acts(t)
        if cond is None or self.scale == 1 or not bool(acts.any()):
            return denoiser.with_variance(x_t, t, cond)
        if self.scale == 0 and bool(acts.all()):
            return denoiser.with_variance(x_t, t, unwanted_condition(denoiser, x_t, negative))
        pair = ask_both(denoiser, x_t, t, cond, negative)
        guided = self._rescaled(pair.at(self.scale), pair.wanted)
        if not bool(acts.all()):
            guided = torch.where(over(acts, x_t).bool(), guided, pair.wanted)
        return guided, pair.fraction

    def _acts(self, t: Tensor) -> Tensor:
        """Whether guidance acts, shape of t."""
        low, high = self.interval
        return (t >= low) & (t <= high)

    def _rescaled(self, guided: Tensor, wanted: Tensor) -> Tensor:
        if self.rescale == 0 or guided.shape[1:].numel() == 1:  # one number has no spread
            return guided
        axes = tuple(range(1, guided.ndim))
        ratio = wanted.std(axes, keepdim=True) / guided.std(axes, keepdim=True).clamp(min=1e-12)
        return guided * (self.rescale * ratio + (1 - self.rescale))
