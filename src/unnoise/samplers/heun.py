"""Heun's rule: the slope at the far end, reached by Euler's rule, corrects the step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..denoisers.base import Condition, Denoiser
from ..process.base import Schedule, scales
from ..randomness import Noise
from .base import Sampler, Stepped, samplers, toward


def _straight(schedule: Schedule, t: Tensor) -> tuple[float, float, float]:
    """A scale r and the coordinates (a, u) in which x / r = a x_0 + u eps runs straight while the estimate stands still."""
    alpha, sigma = scales(schedule, float(t))
    r = alpha if scales(schedule, 1.0)[0] == 1 else alpha + sigma
    return r, alpha / r, sigma / r


@samplers.register("heun")
@dataclass(frozen=True)
class HeunSampler(Sampler):
    """Second order, two network calls a step and one in a step that ends at clean data.

    The trapezoidal rule is applied in sigma on variance-exploding schedules, as EDM does, and on all others in
    sigma / (alpha + sigma), which is the time of flow matching: sigma / alpha would step over thousands where little signal
    is left.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), Algorithm 1,
        https://arxiv.org/abs/2206.00364
    """

    order = 2
    evaluations = 2

    def network_calls(self, grid: Tensor) -> int:
        """Two a step, less one if the grid ends at 0."""
        return 2 * (len(grid) - 1) - int(float(grid[-1]) == 0)

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
        denoised = denoiser(x_t, t, cond)
        x_s = toward(denoised, x_t, schedule, t, s)
        if float(s) == 0:
            return Stepped(x_s, denoised, None)
        (r_t, a_t, u_t), (r_s, a_s, u_s) = _straight(schedule, t), _straight(schedule, s)
        rate = (a_s - a_t) / (u_s - u_t)  # of the clean data's share, per unit of u
        slope = rate * denoised + (x_t / r_t - a_t * denoised) / u_t
        ahead = denoiser(x_s, s, cond)
        slope_ahead = rate * ahead + (x_s / r_s - a_s * ahead) / u_s
        x_s = r_s * torch.add(x_t / r_t, slope + slope_ahead, alpha=(u_s - u_t) / 2)
        return Stepped(x_s, denoised, None)
