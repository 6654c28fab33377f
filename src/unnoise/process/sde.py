r"""The noising process as a stochastic differential equation, :math:`dx = f(t)\, x\, dt + g(t)\, dw`.

Any alpha and sigma are the scales of exactly one such equation:

.. math:: f = \dot\alpha / \alpha, \qquad g^2 = 2 \sigma \dot\sigma - 2 f \sigma^2

"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import IncompatibleParts
from ..shapes import over
from .base import Schedule

_SMALLEST = 1e-12


@dataclass(frozen=True)
class ForwardSDE:
    """Data that turns into noise, little by little, as time goes from 0 to 1.

    For the VP SDE f = -beta / 2 and g^2 = beta; for the sub-VP SDE g^2 = beta (1 - exp(-2 B)); where noise is only added
    (variance exploding), f = 0 and g^2 is the rate of sigma^2.

    Args:
        schedule: Alpha and sigma.

    References:
        Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021), Equation 5 and
        Appendix B, https://arxiv.org/abs/2011.13456
        Variational Diffusion Models (Kingma et al., 2021), Appendix B, https://arxiv.org/abs/2107.00630
    """

    schedule: Schedule

    def drift_rate(self, t: Tensor) -> Tensor:
        """f, the rate at which the signal grows, per unit of time; mostly below 0.

        Args:
            t: Any shape, float64, in [0, 1].

        Raises:
            IncompatibleParts: No signal is left at a time, and the rate is infinite.
        """
        return self.schedule.alpha_dot(t) / self._alpha(t)

    def diffusion_squared(self, t: Tensor) -> Tensor:
        """g^2, the variance that is added per unit of time; arguments and errors as in `drift_rate`."""
        # Where sigma leaves 0 as a square root its rate is infinite at 0, and the product has a limit: so a little later.
        t = t.to(torch.float64).clamp(min=_SMALLEST)
        sigma, alpha = self.schedule.sigma(t), self._alpha(t)
        growth = self.schedule.sigma_dot(t) - self.schedule.alpha_dot(t) / alpha * sigma
        return (2 * sigma * growth).clamp(min=0)

    def diffusion(self, t: Tensor) -> Tensor:
        """g; arguments and errors as in `drift_rate`."""
        return self.diffusion_squared(t).sqrt()

    def drift(self, x: Tensor, t: Tensor) -> Tensor:
        """f x.

        Args:
            x: Shape (B, ...).
            t: Shape () or (B,), in [0, 1].

        Raises:
            IncompatibleParts: No signal is left at a time, and the rate is infinite.
        """
        return over(self.drift_rate(t), x) * x

    def _alpha(self, t: Tensor) -> Tensor:
        alpha = self.schedule.alpha(t)
        if bool((alpha == 0).any()):
            raise IncompatibleParts(
                f"the SDE of {type(self.schedule).__name__} has an infinite drift where no signal is left (alpha = 0): "
                "ask at an earlier time, or take the velocity of the probability flow, which is finite there"
            )
        return alpha
