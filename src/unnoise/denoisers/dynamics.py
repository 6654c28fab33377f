r"""One denoiser seen three ways: as a score, as the drift of an SDE, and as the velocity of an ODE.

All of these carry the same distributions from noise to data; they differ in how a single sample moves. With the forward process
:math:`dx = f x\, dt + g\, dw` and the score :math:`s(x, t) = \nabla \log p_t(x)`, every member of the family

.. math:: dx = \left(f x - \tfrac{1 + \lambda^2}{2} g^2 s\right) dt + \lambda g\, d\bar w,

run from t = 1 down to 0, has the marginals of the forward process: :math:`\lambda = 1` is the reverse SDE, :math:`\lambda = 0`
the probability-flow ODE.

References:
    Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021), Equations 6 and 13,
    https://arxiv.org/abs/2011.13456
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import BadOption
from ..process.forward import score_from_x_0, velocity_from_x_0
from ..process.sde import ForwardSDE
from ..shapes import over
from .base import Condition, Denoiser


def score(denoiser: Denoiser, x: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
    r"""The gradient of the log-density of noisy data, :math:`(\alpha D - x) / \sigma^2`.

    Args:
        denoiser: Gives E[x_0 | x_t, cond].
        x: Noisy data, shape (B, ...).
        t: Its time, shape () or (B,), above 0.
        cond: What is asked for.

    Returns:
        Shape (B, ...).

    Raises:
        IncompatibleParts: There is no noise at that time.
    """
    return score_from_x_0(denoiser(x, t, cond), x, denoiser.schedule, t)


@dataclass(frozen=True)
class ProbabilityFlow:
    """The ODE dx/dt = velocity, along which nothing is left to chance; finite where no signal is left.

    Args:
        denoiser: Gives E[x_0 | x_t, cond].

    References:
        Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021), Equation 13,
        https://arxiv.org/abs/2011.13456
    """

    denoiser: Denoiser

    def velocity(self, x: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        """dx/dt, per unit of time: f x - g^2 s / 2; arguments and errors as in `score`."""
        return velocity_from_x_0(self.denoiser(x, t, cond), x, self.denoiser.schedule, t)


@dataclass(frozen=True)
class ReverseSDE:
    """The SDE that runs from noise to data, or any other of its family; see the head of this module.

    Args:
        denoiser: Gives E[x_0 | x_t, cond].
        stochasticity: Lambda, at least 0: 1 is the reverse SDE, 0 the probability flow.

    Raises:
        BadOption: The stochasticity is below 0 or not a number.

    References:
        Reverse-time diffusion equation models (Anderson, 1982), https://doi.org/10.1016/0304-4149(82)90051-5
    """

    denoiser: Denoiser
    stochasticity: float = 1.0

    def __post_init__(self) -> None:
        if not self.stochasticity >= 0:
            raise BadOption(f"stochasticity: must be at least 0, got {self.stochasticity}")

    def drift(self, x: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        """The drift in forward time; a step of length h from t to t - h moves x by minus h times it.

        Args:
            x: Noisy data, shape (B, ...).
            t: Its time, shape () or (B,), above 0.
            cond: What is asked for.

        Returns:
            Shape (B, ...).

        Raises:
            IncompatibleParts: There is no noise at that time, or no signal and the stochasticity is above 0.
        """
        schedule = self.denoiser.schedule
        denoised = self.denoiser(x, t, cond)
        velocity = velocity_from_x_0(denoised, x, schedule, t)
        if self.stochasticity == 0:
            return velocity
        share = self.stochasticity**2 / 2 * ForwardSDE(schedule).diffusion_squared(t)
        return velocity - over(share, x) * score_from_x_0(denoised, x, schedule, t)

    def diffusion(self, t: Tensor) -> Tensor:
        """Lambda g, shape of t; raises IncompatibleParts where no signal is left and lambda is above 0."""
        if self.stochasticity == 0:
            return torch.zeros_like(t, dtype=torch.float64)
        return self.stochasticity * ForwardSDE(self.denoiser.schedule).diffusion(t)
