"""Predictor and corrector: a step to the next time, then Langevin steps that stay there and mend what it got wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ..denoisers.base import Condition, Denoiser
from ..options import option
from ..process.base import scales
from ..randomness import Noise
from ..shapes import over
from .ancestral import AncestralSampler
from .base import Sampler, Stepped, mix, samplers
from .ddim import DDIMSampler
from .euler_maruyama import EulerMaruyamaSampler

_PREDICTORS: dict[str, Sampler] = {
    "ancestral": AncestralSampler(),
    "ddim": DDIMSampler(),
    "euler_maruyama": EulerMaruyamaSampler(),
}


@samplers.register("predictor_corrector")
@dataclass(frozen=True)
class PredictorCorrectorSampler(Sampler):
    r"""A step of another sampler, then Langevin steps at the level where it ended, each with one network call.

    .. math:: x \leftarrow x + \epsilon \nabla \log p_s(x) + \sqrt{2 \epsilon}\, z, \qquad
        \epsilon = 2 \left(r\, \|z\| / \|\nabla \log p_s(x)\|\right)^2

    with r the signal-to-noise ratio of a Langevin step. Its noise has norm sqrt(D) on average and the score at most
    sqrt(D) / sigma_s, so that by default :math:`\epsilon = 2 r^2 \sigma_s^2`: the same for every sample, and the step is a true
    Langevin step. With `norms` measured they are those of each sample, as in the paper; its code takes their means over the
    batch, and then a sample depends on the others. Measured steps are made for pictures: in few dimensions the score of a
    sample may vanish, a step is then cut to sigma_s^2, and points in the plane come out 40 percent too wide. The factor 1 - beta
    that the paper has for its VP chain is left out: it is 1 but for 2 percent there, and has no meaning for longer steps.

    A Langevin step of finite length leaves a little too much noise, r^2 of its variance where the data is much sharper than
    the noise. The step to clean data has no corrections: nothing is left to correct there.

    References:
        Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021), Algorithms 2 to 5,
        https://arxiv.org/abs/2011.13456
    """

    variants = ({}, {"predictor": "ddim", "corrections": 2}, {"predictor": "euler_maruyama"})
    order = 1

    predictor: Literal["ancestral", "ddim", "euler_maruyama"] = option(
        "ancestral", help="how to get to the next time: ancestral, ddim or euler_maruyama"
    )
    corrections: int = option(1, help="Langevin steps after each step of the predictor", low=0, high=1000)
    snr: float = option(
        0.16, help="signal-to-noise ratio r of a Langevin step; more makes it longer", low=0.01, high=0.7
    )
    norms: Literal["expected", "measured"] = option(
        "expected",
        help="norms of noise and score in the step's length: expected, or measured for each sample, which suits pictures only",
    )

    @property
    def stochastic(self) -> bool:  # type: ignore[override]
        """Whether the predictor draws noise, or there are corrections."""
        return _PREDICTORS[self.predictor].stochastic or self.corrections > 0

    def network_calls(self, grid: Tensor) -> int:
        """One a step, and one a correction at every time but clean data."""
        corrected = len(grid) - 1 - int(float(grid[-1]) == 0)
        return len(grid) - 1 + self.corrections * corrected

    def step(
        self,
        denoiser: Denoiser,
        x_t: Tensor,
        t: Tensor,
        s: Tensor,
        state: Any,
        *,
        cond: Condition | None = None,
        noise: Noise | None = None,
    ) -> Stepped:
        """See `Sampler.step`."""
        x, denoised, _ = _PREDICTORS[self.predictor].step(denoiser, x_t, t, s, None, cond=cond, noise=noise)
        alpha, sigma = scales(denoiser.schedule, float(s))
        if sigma == 0:
            return Stepped(x, denoised, None)
        for draw in range(1, self.corrections + 1):
            assert noise is not None
            denoised = denoiser(x, s, cond)
            z = noise(x, float(t), float(s), draw)
            x = self._correct(x, denoised, z, alpha, sigma)
        return Stepped(x, denoised, None)

    def _correct(self, x: Tensor, denoised: Tensor, z: Tensor, alpha: float, sigma: float) -> Tensor:
        if self.norms == "expected":
            share = 2 * self.snr**2  # the step's length over sigma^2
            return torch.add(mix(1 - share, x, share * alpha, denoised), z, alpha=(2 * share) ** 0.5 * sigma)
        noise_found = (x - alpha * denoised) / sigma  # minus sigma times the score
        ratio = z.flatten(1).norm(dim=1) / noise_found.flatten(1).norm(dim=1).clamp(min=torch.finfo(x.dtype).tiny)
        shares = over((2 * (self.snr * ratio) ** 2).clamp(max=1), x)
        return x - shares * sigma * noise_found + (2 * shares).sqrt() * sigma * z
