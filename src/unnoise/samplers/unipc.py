"""UniPC: a predictor and a corrector of any order that share one network call."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ..options import option
from ..process.base import Schedule, log_snr_at, scales
from .base import samplers
from .multistep import OnData


@samplers.register("unipc")
@dataclass(frozen=True)
class UniPCSampler(OnData):
    r"""Predictor and corrector on the clean data in half log-SNR (UniP and UniC), for few steps. One network call a step.

    UniC is of one order more than the predictor.

    The weights with three estimates and more do not depend on the variant: whatever B(h) is, it cancels in the solution of
    the paper's linear system, which is the integral of the polynomial. With two, as in the paper, the system is not solved
    and one weight is :math:`B(h) / 2`.

    The first step has nothing to look back on, and what its corrector learns was estimated after a step of Euler's rule:
    this holds the order of the whole to 3.

    References:
        UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion Models (Zhao et al., 2023),
        Algorithms 5 and 6 and Section 3.1, https://arxiv.org/abs/2302.04867
    """

    variants = ({}, {"predictor_order": 2}, {"predictor_order": 2, "corrector": False, "variant": "bh1"})
    proven_too = (
        {"predictor_order": 1}, {"predictor_order": 1, "variant": "bh1"}, {"predictor_order": 2, "variant": "bh1"},
        {"variant": "bh1"}, {"corrector": False}, {"predictor_order": 1, "corrector": False},
    )  # fmt: skip

    predictor_order: int = option(3, help="how many estimates each step is extrapolated from", low=1, high=3)
    corrector: bool = option(True, help="correct each step once the estimate at its end is known")
    variant: Literal["bh1", "bh2"] = option("bh2", help="B(h): bh1 is h, bh2 is e^h - 1")

    @property
    def order(self) -> int:  # type: ignore[override]
        """One more than the predictor's with the corrector, at most 3."""
        return min(self.predictor_order + self.corrector, 3)

    @property
    def reach(self) -> int:
        """The predictor's order."""
        return self.predictor_order

    @property
    def corrected(self) -> int:
        """One more, if there is a corrector."""
        return self.predictor_order + 1 if self.corrector else 0

    def weigh(self, schedule: Schedule, nodes: tuple[float, ...], t: float, s: float) -> tuple[float, ...]:
        """See `LinearMultistep.weigh`."""
        if len(nodes) != 2:
            return super().weigh(schedule, nodes, t, s)
        newest, other, begin, end = (log_snr_at(schedule, time) / 2 for time in (*nodes, t, s))
        h, alpha_s = end - begin, scales(schedule, s)[0]
        total = -alpha_s * math.expm1(-h)
        half = (alpha_s * h if self.variant == "bh1" else total) / 2
        if newest == end:
            return half, total - half
        share = half * h / (newest - other)
        return total + share, -share
