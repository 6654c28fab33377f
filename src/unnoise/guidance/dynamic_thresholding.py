"""Dynamic thresholding: what guidance drove out of the range of the data is brought back, sample by sample."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..denoisers.base import Condition, Denoiser
from ..options import option
from .base import Guidance, guidances, positive
from .pair import extrapolated


@guidances.register("dynamic_thresholding")
@dataclass(frozen=True)
class DynamicThresholding(Guidance):
    r"""Classifier-free guidance whose estimate is clipped at a high percentile, and scaled down to the range of the data.

    The estimate D becomes :math:`b\, \mathrm{clip}(D, -s, s) / s`. The threshold s is that percentile of each sample's |D|, and at
    least the bound b: what hardly leaves the range of the data is only clipped to it. There must be such a range, as pixels have
    and latents have not. Where nothing is asked for nothing is thresholded.

    References:
        Photorealistic Text-to-Image Diffusion Models with Deep Language Understanding (Saharia et al., 2022), Section 2.3 and
        Appendix A.32, https://arxiv.org/abs/2205.11487
    """

    neutral = {"scale": 1.0, "bound": math.inf}

    scale: float = option(
        1.0,
        help="1 is the conditional model, 0 unconditional, above 1 pushes towards the condition; then the bound holds",
        low=0,
    )
    percentile: float = option(0.995, help="share of a sample's values that lie within its threshold", low=0, high=1)
    bound: float = option(1.0, help="largest absolute value in clean data, 1 for pixels; infinite for no threshold")

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("bound", self.bound)

    def estimate(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, cond: Condition | None, negative: Condition | None
    ) -> tuple[Tensor, Tensor | None]:
        """See `Guidance.estimate`."""
        guided, fraction = extrapolated(denoiser, x_t, t, cond, negative, self.scale)
        if cond is None or math.isinf(self.bound):
            return guided, fraction
        values = guided.flatten(1)
        s = torch.quantile(values.abs(), self.percentile, dim=1, keepdim=True).clamp(min=self.bound)
        return (values.clamp(-s, s) * (self.bound / s)).reshape(guided.shape), fraction
