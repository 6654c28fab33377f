"""DEIS: the noise is extrapolated in time, and what stands around it is integrated exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ..options import option
from ..process.base import Schedule, log_snr_at, scales
from .base import samplers
from .coordinates import integrals
from .multistep import OnNoise


@samplers.register("deis")
@dataclass(frozen=True)
class DEISSampler(OnNoise):
    r"""Exponential integrator on the noise, extrapolated by a polynomial (DEIS: tAB and rhoAB). One network call a step.

    At order 4 one more in all.

    .. math:: x_s = \frac{\alpha_s}{\alpha_t} x_t + \alpha_s \sum_j \hat\varepsilon_j \int_t^s \ell_j(\tau)\, d(\sigma / \alpha)

    The paper counts the degree of the polynomial: its tAB3 is order 4 here. A table of few levels bends the noise, as a
    function of time, at every level, which holds a polynomial in time to order 2; one in log-SNR knows nothing of it.

    References:
        Fast Sampling of Diffusion Models with Exponential Integrator (Zhang & Chen, 2023), Equations 14 and 15,
        https://arxiv.org/abs/2204.13902
    """

    variants = ({}, {"order": 2}, {"polynomial": "log"}, {"order": 4, "polynomial": "log"})
    proven_too = ({"order": 1}, {"polynomial": "rho"}, {"order": 2, "polynomial": "log"})

    order: int = option(3, help="how many estimates each step is extrapolated from", low=1, high=4)
    polynomial: Literal["t", "rho", "log"] = option(
        "t", help="what the noise is a polynomial in: t the time, rho sigma / alpha (as lms), log the log-SNR"
    )

    @property
    def reach(self) -> int:
        """The order."""
        return self.order

    def finite(self, schedule: Schedule, t: float) -> bool:
        """See `LinearMultistep.finite`; the log-SNR has no end at clean data either."""
        return super().finite(schedule, t) and (self.polynomial != "log" or t > 0)

    def weigh(self, schedule: Schedule, nodes: tuple[float, ...], t: float, s: float) -> tuple[float, ...]:
        """See `LinearMultistep.weigh`."""
        if self.polynomial == "rho":
            return super().weigh(schedule, nodes, t, s)
        if self.polynomial == "log":
            *known, begin, end = (log_snr_at(schedule, time) / 2 for time in (*nodes, t, s))
            found = integrals(known, begin, end, lambda half_log_snr: -np.exp(-half_log_snr))
        else:
            found = integrals(nodes, t, s, lambda times: _rate(schedule, times))
        # Scaled to the exact integral of a slope that stands still: near clean data the rate may be too steep for a rule.
        whole = scales(schedule, s)[1] - self.carried(schedule, t, s) * scales(schedule, t)[1]
        return tuple(whole * each / sum(found) for each in found)


def _rate(schedule: Schedule, times: NDArray[np.float64]) -> NDArray[np.float64]:
    """The derivative of sigma / alpha in time."""
    at = torch.from_numpy(times)
    alpha, sigma = schedule.alpha(at), schedule.sigma(at)
    rate: NDArray[np.float64] = ((schedule.sigma_dot(at) * alpha - sigma * schedule.alpha_dot(at)) / alpha**2).numpy()
    return rate
