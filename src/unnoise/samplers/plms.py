"""PLMS, of PNDM: the noise is averaged over the last steps and carried by DDIM's transfer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ..denoisers.base import Condition, Denoiser
from ..options import option
from ..process.base import Schedule, scales
from ..randomness import Noise
from .base import Stepped, samplers
from .coordinates import flow_line, integrals, noise_line
from .multistep import LONGEST, OnNoise, Past, distance


@samplers.register("plms")
@dataclass(frozen=True)
class PLMSSampler(OnNoise):
    r"""Pseudo linear multistep, known from early Stable Diffusion: DDIM with the noise extrapolated from the steps before.

    :math:`x_s` is DDIM's for the noise :math:`\sum_j w_j \hat\varepsilon_j`.

    The weights are those of a polynomial in time, (55, -59, 37, -9) / 24 where the times stand at equal distances, and their
    like where they do not. As the transfer is not a straight line in time, the whole is of second order, as the paper proves.

    The first step is Heun's, with one call more than steps ("plms", 1 more), or the first three are of Runge and Kutta
    ("runge_kutta", 9 more); a step to clean data makes one.

    References:
        Pseudo Numerical Methods for Diffusion Models on Manifolds (Liu et al., 2022), Equations 11 to 13 and Algorithm 2,
        https://arxiv.org/abs/2202.09778
    """

    variants = ({}, {"warmup": "runge_kutta"})
    order = 2
    reach = 4
    corrects_start = False

    warmup: Literal["plms", "runge_kutta"] = option(
        "plms", help="how to begin: plms with one call more, runge_kutta with nine"
    )

    def network_calls(self, grid: Tensor) -> int:
        """One a step, and what the warm-up makes besides."""
        begun = sum(float(s) > 0 for s in grid[1:4])
        return len(grid) - 1 + (3 * begun if self.warmup == "runge_kutta" else min(begun, 1))

    def weigh(self, schedule: Schedule, nodes: tuple[float, ...], t: float, s: float) -> tuple[float, ...]:
        """See `LinearMultistep.weigh`: the polynomial's average over the step, times all of the step."""
        whole = scales(schedule, s)[1] - self.carried(schedule, t, s) * scales(schedule, t)[1]
        return tuple(whole * each / (s - t) for each in integrals(nodes, t, s))

    def step(
        self,
        denoiser: Denoiser,
        x_t: Tensor,
        t: Tensor,
        s: Tensor,
        state: Past | None,
        *,
        cond: Condition | None = None,
        noise: Noise | None = None,
    ) -> Stepped:
        """See `Sampler.step`."""
        if self.warmup == "plms" or (state is not None and len(state.times) > 2) or float(s) == 0:
            return super().step(denoiser, x_t, t, s, state, cond=cond, noise=noise)
        return self._runge_kutta(denoiser, x_t, t, s, state, cond)

    def _runge_kutta(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, state: Past | None, cond: Condition | None
    ) -> Stepped:
        """The classical rule in sigma / alpha with its middle at half the time; on the flow's line where it leaps there."""
        schedule, middle = denoiser.schedule, (t + s) / 2
        near = self.finite(schedule, float(t)) and distance(schedule, float(t), float(s)) <= LONGEST
        begin, half, end = ((noise_line if near else flow_line)(schedule, float(at)) for at in (t, middle, s))
        denoised = denoiser(x_t, t, cond)
        slope = begin.from_x * x_t + begin.from_denoised * denoised
        mean, y = slope / 6, x_t / begin.scale
        for at, place, share in ((middle, half, 1 / 3), (middle, half, 1 / 3), (s, end, 1 / 6)):
            x = place.scale * (y + (place.k - begin.k) * slope)
            slope = place.from_x * x + place.from_denoised * denoiser(x, at, cond)
            mean = mean + share * slope
        on_x, on_denoised = self.slope(schedule, float(t))
        noise_t = on_x * x_t + on_denoised * denoised
        times, slopes, _ = state or Past((), ())
        past = Past((float(t), *times), (noise_t, *slopes))
        return Stepped(end.scale * (y + (end.k - begin.k) * mean), denoised, past)
