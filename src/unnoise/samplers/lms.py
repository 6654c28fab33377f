"""Linear multistep: the noise is extrapolated in sigma / alpha from the last steps."""

from __future__ import annotations

from dataclasses import dataclass

from ..options import option
from .base import samplers
from .multistep import OnNoise


@samplers.register("lms")
@dataclass(frozen=True)
class LMSSampler(OnNoise):
    """Linear multistep: the rule of Adams and Bashforth for unequal steps, in sigma / alpha. One network call a step.

    At order 4 one more in all.

    k-diffusion's sample_lms begins with Euler's rule and leaves it there, which is of second order whatever follows; here
    the first steps are corrected. A step too long for all estimates takes fewer.

    References:
        Pseudo Numerical Methods for Diffusion Models on Manifolds (Liu et al., 2022), Equation 12,
        https://arxiv.org/abs/2202.09778; the rule in sigma is known from k-diffusion
    """

    variants = ({}, {"order": 2}, {"order": 3})

    order: int = option(4, help="how many estimates each step is extrapolated from", low=1, high=4)

    @property
    def reach(self) -> int:
        """The order."""
        return self.order
