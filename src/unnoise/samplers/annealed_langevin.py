"""Annealed Langevin dynamics: walk along the score at each noise level, and let the level sink."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..denoisers.base import Condition, Denoiser
from ..options import option
from ..process.base import scales
from ..randomness import Noise
from .base import Sampler, Stepped, mix, samplers, toward


@samplers.register("annealed_langevin")
@dataclass(frozen=True)
class AnnealedLangevinSampler(Sampler):
    r"""Langevin steps at every level of the grid, longer where there is more noise, and a last estimate. Many network calls.

    .. math:: x \leftarrow x + \tfrac{a}{2} \nabla \log p_t(x) + \sqrt{a}\, z, \qquad a = q\, \sigma_t^2

    q is the paper's epsilon / sigma_L^2, which has q = 0.2 and 100 steps at each of ten levels. From one level to the next
    x / alpha stays as it is, as x does in the paper where alpha is 1; in these coordinates the Langevin step is the paper's on
    every schedule. What is left too much of the noise of the level above, the steps at the next one walk off: the method knows
    neither SDE nor ODE, has no order, and wants levels close to each other. It leaves data a little too wide (N(1, 0.5^2) by
    1 to 2 hundredths after 400 levels of 5 steps), by less with more levels or steps.

    The step from t to s makes the last Langevin step at t, then those at s but for the last, so that a run makes `corrections`
    steps at every level between the first, where the start is as it should be, and the lowest, where the last step is the one
    to the estimate of the clean data. From where no signal is left it goes to s as `ddim` does.

    References:
        Generative Modeling by Estimating Gradients of the Data Distribution (Song & Ermon, 2019), Algorithm 1,
        https://arxiv.org/abs/1907.05600
        how many steps, how long: Improved Techniques for Training Score-Based Generative Models (Song & Ermon, 2020),
        https://arxiv.org/abs/2006.09011
        the last estimate: Adversarial Score Matching and Improved Sampling for Image Generation (Jolicoeur-Martineau et al.,
        2021), https://arxiv.org/abs/2009.05475
    """

    variants = ({}, {"corrections": 10, "step_size": 0.4})
    order = None
    stochastic = True

    corrections: int = option(5, help="Langevin steps at each level", low=1, high=10_000)
    step_size: float = option(
        0.5,
        help="a / sigma^2, the length of a Langevin step; longer ones mix faster and leave more noise",
        low=1e-6,
        high=2.0,
    )

    def network_calls(self, grid: Tensor) -> int:
        """As many a step as there are corrections; one to clean data."""
        return self.corrections * (len(grid) - 2) + (1 if float(grid[-1]) == 0 else self.corrections)

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
        schedule = denoiser.schedule
        (alpha_t, sigma_t), (alpha_s, sigma_s) = scales(schedule, float(t)), scales(schedule, float(s))
        denoised = denoiser(x_t, t, cond)
        if sigma_s == 0:
            return Stepped(alpha_s * denoised, denoised, None)
        assert noise is not None
        x = self._langevin(x_t, denoised, noise(x_t, float(t), float(s)), alpha_t, sigma_t)
        x = x * (alpha_s / alpha_t) if alpha_t else toward(denoised, x, schedule, t, s)
        for draw in range(1, self.corrections):
            denoised = denoiser(x, s, cond)
            x = self._langevin(x, denoised, noise(x, float(t), float(s), draw), alpha_s, sigma_s)
        return Stepped(x, denoised, None)

    def _langevin(self, x: Tensor, denoised: Tensor, z: Tensor, alpha: float, sigma: float) -> Tensor:
        share = self.step_size / 2
        return torch.add(mix(1 - share, x, share * alpha, denoised), z, alpha=self.step_size**0.5 * sigma)
