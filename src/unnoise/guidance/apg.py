"""Adaptive projected guidance: of what guidance adds, the part that only makes an estimate larger is left out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..denoisers.base import Condition, Denoiser
from ..options import option
from .base import Guidance, guidances, positive
from .pair import ask_both, inner


@guidances.register("apg")
@dataclass(frozen=True)
class AdaptiveProjectedGuidance(Guidance):
    r"""Classifier-free guidance without what only makes an estimate larger, and with differences of limited length.

    .. math:: D = D_c + (g - 1)(\Delta_\perp + \eta \Delta_\parallel), \qquad \Delta = D_c - D_\varnothing

    :math:`\Delta_\parallel` is the part of :math:`\Delta` along :math:`D_c`, which makes colours more saturated, and
    :math:`\Delta_\perp` the rest. Before it is split, :math:`\Delta` is shortened to the norm threshold. A sample of a single
    number has no direction but its own: there the rest is 0. With `parallel` 1 and no threshold this is classifier-free guidance.

    The paper's third part, a negative momentum over the differences of earlier steps, is left out: an estimate would depend on
    how many steps came before, so that samplers of higher order and of adaptive steps would no longer solve one equation.

    References:
        Eliminating Oversaturation and Artifacts of High Guidance Scales in Diffusion Models (Sadat et al., 2024), Section 4,
        https://arxiv.org/abs/2410.02416
    """

    neutral = {"scale": 1.0}

    scale: float = option(
        1.0,
        help="1 is the plain conditional model, above 1 pushes towards the condition, across the estimate alone",
        low=0,
    )
    parallel: float = option(
        0.0, help="share that is kept of the part along the conditional estimate, eta in the paper", low=0, high=1
    )
    norm_threshold: float = option(
        math.inf, help="longest difference of a sample's two estimates, r in the paper; infinite for any length"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("norm_threshold", self.norm_threshold)

    def estimate(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, cond: Condition | None, negative: Condition | None
    ) -> tuple[Tensor, Tensor | None]:
        """See `Guidance.estimate`."""
        if cond is None or self.scale == 1:
            return denoiser.with_variance(x_t, t, cond)
        wanted, unwanted, fraction = ask_both(denoiser, x_t, t, cond, negative)
        return wanted + (self.scale - 1) * self._kept(wanted - unwanted, wanted), fraction

    def _kept(self, difference: Tensor, wanted: Tensor) -> Tensor:
        tiny = torch.finfo(wanted.dtype).tiny
        if not math.isinf(self.norm_threshold):
            length = inner(difference, difference).sqrt().clamp(min=tiny)
            difference = difference * (self.norm_threshold / length).clamp(max=1)
        if self.parallel == 1:
            return difference
        along = inner(difference, wanted) / inner(wanted, wanted).clamp(min=tiny) * wanted
        return difference - (1 - self.parallel) * along
