"""Averages of any length after training, from power averages that were stored while it went on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .averages import power_exponent

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Profile:
    """A power average as it stood after some updates: how much the weights of each moment count in it.

    Args:
        step: Updates before it.
        length: Standard deviation of the profile as a share of these.
    """

    step: int
    length: float

    @property
    def gamma(self) -> float:
        """The exponent."""
        return power_exponent(self.length)


def dot(step_a: ArrayLike, gamma_a: ArrayLike, step_b: ArrayLike, gamma_b: ArrayLike) -> Floats:
    r"""The inner product of two power profiles.

    .. math:: \int_0^{\min(a, b)} p_{\gamma_a, a}(\tau)\, p_{\gamma_b, b}(\tau)\, d\tau, \qquad
        p_{\gamma, t}(\tau) = \frac{(\gamma + 1)\, \tau^\gamma}{t^{\gamma + 1}}

    References:
        Analyzing and Improving the Training Dynamics of Diffusion Models (Karras et al., 2024), Algorithm 3,
        https://arxiv.org/abs/2312.02696

    Args:
        step_a: Where the first ends; any shapes that broadcast.
        gamma_a: Its exponent.
        step_b: Where the second ends.
        gamma_b: Its exponent.
    """
    a, g_a, b, g_b = (np.asarray(each, dtype=np.float64) for each in (step_a, gamma_a, step_b, gamma_b))
    # The shorter one ends at m, where the longer one, of exponent g, has fallen to (m / M)^g; written so that nothing overflows.
    ratio = np.minimum(a, b) / np.maximum(a, b)
    of_longer = np.where(a < b, g_b, g_a)
    return np.asarray((g_a + 1) * (g_b + 1) / (g_a + g_b + 1) * ratio**of_longer / np.maximum(a, b), dtype=np.float64)


@dataclass(frozen=True)
class Reconstruction:
    """How an average is made of others.

    Args:
        coefficients: Of each, shape (N,), float64; they sum to 1.
        error: Root mean square of what its profile lacks, as a share of the profile's own.
    """

    coefficients: Floats
    error: float


def reconstruct(stored: Sequence[Profile], wanted: Profile) -> Reconstruction:
    r"""The average whose profile is the least squares fit of the stored ones to the wanted one.

    .. math:: A_{ij} = \langle p_i, p_j \rangle, \quad b_i = \langle p_i, p \rangle, \quad \min_x x^T A x - 2 b^T x

    The paper solves :math:`A x = b`. Here the solution is held to :math:`\sum_i x_i = 1`, so that an average of few snapshots does
    not shrink the weights; with many the two agree.

    References:
        Analyzing and Improving the Training Dynamics of Diffusion Models (Karras et al., 2024), Appendix C.3 and Algorithm 3,
        https://arxiv.org/abs/2312.02696

    Args:
        stored: Profiles of what there is, none twice.
        wanted: Of what is made.

    Returns:
        Coefficients in the order of `stored`, and the error, which is 0 for a profile that is among them.
    """
    steps = np.array([each.step for each in stored], dtype=np.float64)
    gammas = np.array([each.gamma for each in stored], dtype=np.float64)
    step, gamma = float(wanted.step), wanted.gamma
    size, norm = np.sqrt(dot(steps, gammas, steps, gammas)), float(np.sqrt(dot(step, gamma, step, gamma)))
    # Profiles of unit norm, which makes the system as well conditioned as it can be.
    product = dot(steps[:, None], gammas[:, None], steps, gammas) / (size[:, None] * size)
    onto = dot(steps, gammas, step, gamma) / (size * norm)
    sums = norm / size  # what a coefficient of unit profiles adds to the sum of the true ones
    bordered = np.block([[product, sums[:, None]], [sums[None], np.zeros((1, 1))]])
    x = np.linalg.solve(bordered, np.append(onto, 1.0))[:-1]
    left = x @ product @ x - 2 * x @ onto + 1
    return Reconstruction(x * sums, float(np.sqrt(max(left, 0.0))))
