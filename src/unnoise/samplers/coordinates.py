r"""Lines on which the probability-flow ODE is simple: :math:`dy / dk = F` for y = x / scale.

Every deterministic sampler of the field is a classical rule (Euler, Heun, Adams, Runge-Kutta) on one of four lines:

============  ========================  =====================  ==========================================
line          k                         y                      slope F, an average given x_t
============  ========================  =====================  ==========================================
`noise_line`  sigma / alpha             x / alpha              noise
`data_line`   alpha / sigma             x / sigma              clean data
`flow_line`   sigma / (alpha + sigma)   x / (alpha + sigma)    noise - clean data, flow matching's velocity
`arc`         atan2(sigma, alpha s)     x / r                  cos k noise - sin k clean data / s
============  ========================  =====================  ==========================================

with s the standard deviation of the data and r = sqrt(sigma^2 + alpha^2 s^2). They differ in what a rule takes to be smooth:
on the last line the slope of round normal data is 0, so that every rule is exact there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..process.base import Schedule, scales


class Place(NamedTuple):
    """Where a time stands on a line."""

    k: float
    """The coordinate; infinite where the line has no end there."""
    scale: float
    """y = x / scale."""
    from_x: float
    """The slope is from_x x + from_denoised D."""
    from_denoised: float


Line = Callable[[Schedule, float], Place]


@lru_cache(maxsize=65536)
def noise_line(schedule: Schedule, t: float) -> Place:
    """sigma / alpha; without end where no signal is left."""
    alpha, sigma = scales(schedule, t)
    k = sigma / alpha if alpha else math.inf
    return Place(k, alpha, 1 / sigma, -alpha / sigma) if sigma else Place(0.0, alpha, math.nan, math.nan)


@lru_cache(maxsize=65536)
def data_line(schedule: Schedule, t: float) -> Place:
    """alpha / sigma; without end at clean data."""
    alpha, sigma = scales(schedule, t)
    return Place(alpha / sigma if sigma else math.inf, sigma, 0.0, 1.0)


@lru_cache(maxsize=65536)
def flow_line(schedule: Schedule, t: float) -> Place:
    """sigma / (alpha + sigma), from 0 to at most 1."""
    alpha, sigma = scales(schedule, t)
    if sigma == 0:
        return Place(0.0, alpha, math.nan, math.nan)
    return Place(sigma / (alpha + sigma), alpha + sigma, 1 / sigma, -(alpha + sigma) / sigma)


@lru_cache(maxsize=65536)
def arc(schedule: Schedule, t: float, sigma_data: float = 1.0) -> Place:
    """The angle between signal and noise, from 0 to at most pi / 2."""
    alpha, sigma = scales(schedule, t)
    signal = alpha * sigma_data
    r = math.hypot(signal, sigma)
    if sigma == 0:
        return Place(0.0, r, math.nan, math.nan)
    return Place(math.atan2(sigma, signal), r, signal / (r * sigma), -r / (sigma * sigma_data))


_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(32)


def integrals(
    nodes: Sequence[float], begin: float, end: float, weight: Callable[[np.ndarray], np.ndarray] | None = None
) -> tuple[float, ...]:
    r"""The weights of an interpolated integrand: :math:`\int_{begin}^{end} \ell_j(k)\, w(k)\, dk` for every node j.

    Args:
        nodes: Where the integrand is known; all different.
        begin: Where the integral begins.
        end: Where it ends.
        weight: w, of an array; 1 if left out.

    Returns:
        One for each node: the integral of its Lagrange polynomial, by 32 points of Gauss and Legendre.
    """
    half = (end - begin) / 2
    k = half * _NODES + (begin + end) / 2
    measure = half * _WEIGHTS if weight is None else half * _WEIGHTS * weight(k)
    found = []
    for j, node in enumerate(nodes):
        basis = np.ones_like(k)
        for i, other in enumerate(nodes):
            if i != j:
                basis *= (k - other) / (node - other)
        found.append(float(basis @ measure))
    return tuple(found)
