r"""CFG++: the guided estimate of the clean data, but the unconditional noise put back around it.

A step of first order from t to s is :math:`x_s = \alpha_s \hat x_0 + k \hat\varepsilon`, and perhaps fresh noise: what is kept
of the noise found at t is all of it, :math:`k = \sigma_s`, where none is drawn. CFG++ takes :math:`\hat x_0` from guidance of
scale g and :math:`\hat\varepsilon = (x_t - \alpha_t D_r) / \sigma_t` from another scale r, 0 in the paper. A denoiser gives one
estimate, which the sampler uses for both; but as both lie on one line, one scale does it all:

.. math:: g_{s|t} = r + \frac{g - r}{1 - k \alpha_t / (\sigma_t \alpha_s)}

the factor being that by which the noise that is put back undoes guidance within the step. It depends on where the step goes,
which `Denoiser.stepping` tells.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..denoisers.base import Condition, Denoiser
from ..errors import IncompatibleParts
from ..options import option
from ..process.base import Schedule, scales
from .base import Guidance, guidances
from .pair import extrapolated


@guidances.register("cfg_pp")
@dataclass(frozen=True)
class CFGPlusPlus(Guidance):
    r"""Guides the estimate of the clean data alone, and puts the noise of no condition back around it.

    .. math:: x_s = \alpha_s (D_\varnothing + g (D_c - D_\varnothing)) + k \hat\varepsilon_\varnothing

    The scale g, the paper's lambda, is mostly between 0 and 1. 0 is the unconditional model. 1 is not the plain conditional
    one, but moves the whole estimate there in every step, however short: so n steps guide as much as classifier-free guidance
    with a scale of about n g over the range of half log-SNR. Exact for steps of first order (DDIM, Euler, ancestral, DDPM),
    with any share of fresh noise, in both directions; other samplers that ask several times a step take the same scale for all
    calls of a step. Asked for no step, it is classifier-free guidance of scale g, as for a step to clean data.

    References:
        CFG++: Manifold-constrained Classifier Free Guidance for Diffusion Models (Chung et al., 2024), Algorithm 2,
        https://arxiv.org/abs/2406.08070
    """

    neutral = {"scale": 1.0, "renoise": 1.0}

    scale: float = option(0.6, help="of the estimate of the clean data: 0 is unconditional, 1 conditional", low=0)
    renoise: float = option(
        0.0,
        help="of the noise that is put back: 0 unconditional, as in the paper; as `scale` for plain guidance",
        low=0,
    )

    def stepping(self, schedule: Schedule, t: float, s: float, kept: float | None) -> Guidance:
        """Classifier-free guidance with the scale that this step takes; see `Guidance.stepping`."""
        return Extrapolation(self.scale_of_step(schedule, t, s, kept))

    def scale_of_step(self, schedule: Schedule, t: float, s: float, kept: float | None) -> float:
        """The scale of classifier-free guidance that makes a step of first order from t to s the same.

        Args:
            schedule: Alpha and sigma.
            t: Where the step begins.
            s: Where it ends.
            kept: The standard deviation of the noise that it carries over.

        Raises:
            IncompatibleParts: That is not known.
        """
        if self.scale == self.renoise:
            return self.scale
        if kept is None:
            raise IncompatibleParts(
                "guidance cfg_pp must know how much noise a step keeps, which this sampler does not say: take ddim, euler, "
                "ancestral, ddpm, or one that draws no noise"
            )
        (alpha_t, sigma_t), alpha_s = scales(schedule, t), scales(schedule, s)[0]
        # Of all that stands between two times: infinite for none, 1 where a step begins without signal or ends without noise.
        factor = alpha_s * sigma_t / (alpha_s * sigma_t - kept * alpha_t)
        return self.renoise + (self.scale - self.renoise) * factor

    def estimate(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, cond: Condition | None, negative: Condition | None
    ) -> tuple[Tensor, Tensor | None]:
        """See `Guidance.estimate`; for no step."""
        return extrapolated(denoiser, x_t, t, cond, negative, self.scale)


@dataclass(frozen=True)
class Extrapolation(Guidance):
    """Classifier-free guidance of any scale, below 0 for steps from data to noise."""

    scale: float = option(1.0, help="as in classifier-free guidance, of any sign")

    def estimate(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, cond: Condition | None, negative: Condition | None
    ) -> tuple[Tensor, Tensor | None]:
        """See `Guidance.estimate`."""
        return extrapolated(denoiser, x_t, t, cond, negative, self.scale)
