"""Plain mean squared error of the network's prediction, weighted by time."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..denoisers.base import Denoiser, PreconditionedDenoiser
from ..errors import IncompatibleParts
from ..options import option
from ..process.forward import add_noise
from ..shapes import over
from .base import Draws, Objective, Prepared, objectives
from .times import TimeDensity, UniformTimes, time_densities
from .weightings import UniformWeighting, Weighting, weightings


def preconditioned(denoiser: Denoiser) -> PreconditionedDenoiser:
    """The denoiser made of a network by four coefficients; itself, or the one inside.

    Raises:
        IncompatibleParts: There is none to train.
    """
    inner = getattr(denoiser, "inner", denoiser)
    if not isinstance(inner, PreconditionedDenoiser):
        raise IncompatibleParts(f"{type(denoiser).__name__} has no network to train")
    return inner


@objectives.register("mse")
@dataclass(frozen=True)
class MSEObjective(Objective):
    """The squared error of the prediction, averaged over the components of a sample.

    References:
        Denoising Diffusion Probabilistic Models (Ho et al., 2020), Equation 14, https://arxiv.org/abs/2006.11239
    """

    times: TimeDensity = option(UniformTimes(), help="which times are trained, and how often", one_of=time_densities)
    weighting: Weighting = option(UniformWeighting(), help="how much the error at each time counts", one_of=weightings)
    condition_dropout: float = option(
        0.1, help="share of samples that are trained without their condition", low=0, high=1
    )

    def prepare(self, denoiser: Denoiser, draws: Draws) -> Prepared:
        """See `Objective.prepare`."""
        d, t = preconditioned(denoiser), draws.t
        c = d.coefficients(t)
        x_t = add_noise(draws.x_0, draws.eps, d.schedule, t)
        weight = self.weighting.weight(t, d.schedule, c.out, d.sigma_data)
        inputs, target = over(c.in_, x_t) * x_t, d.target(draws.x_0, draws.eps, t)
        return Prepared(inputs, c.noise.to(x_t.dtype), draws.cond, target, weight.to(x_t.dtype), draws)

    def losses(self, denoiser: Denoiser, prepared: Prepared) -> Tensor:
        """See `Objective.losses`."""
        answer = preconditioned(denoiser).answer(prepared.inputs, prepared.noise_level, prepared.cond)
        return prepared.weight * (answer - prepared.target).square().flatten(1).mean(1)

    def floors(self, denoiser: Denoiser, oracle: Denoiser, draws: Draws) -> Tensor:
        """See `Objective.floors`."""
        d = preconditioned(denoiser)
        x_0, eps = draws.x_0.double(), draws.eps.double()
        estimate = oracle(add_noise(x_0, eps, d.schedule, draws.t), draws.t, draws.cond)
        out = d.coefficients(draws.t).out
        weight = self.weighting.weight(draws.t, d.schedule, out, d.sigma_data)
        return weight / out**2 * (estimate - x_0).square().flatten(1).mean(1)
