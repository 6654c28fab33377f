"""Plain mean squared error of the network's prediction, weighted by time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..denoisers.base import Denoiser, PreconditionedDenoiser
from ..errors import IncompatibleParts
from ..options import option
from ..process.base import Schedule
from ..process.forward import add_noise
from ..shapes import over
from .base import Draws, Objective, Prepared, objectives
from .companion import Companion
from .noise import NoiseSettings
from .times import TimeDensity, UniformTimes, time_densities
from .uncertainty import LearnedUncertainty
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


def network_inputs(denoiser: Denoiser, prepared: Prepared) -> Tensor:
    """What the network takes, shape (B, C, ...), or (B, 2 C, ...) where it is self-conditioned.

    Samples that recall are first estimated without learning from it, and see that estimate; all others see zeros.

    References:
        Analog Bits: Generating Discrete Data using Diffusion Models with Self-Conditioning (Chen et al., 2023), Algorithm 1,
        https://arxiv.org/abs/2208.04202
    """
    inner = preconditioned(denoiser)
    if not inner.self_conditioned:
        return prepared.inputs
    recalls = prepared.draws.recalls
    rows = torch.zeros(0, dtype=torch.int64) if recalls is None else recalls.nonzero().flatten()
    asked = rows
    if not len(rows):
        if not getattr(inner.network, "works_together", False):
            return inner.beside(prepared.inputs, None)
        asked = torch.zeros(1, dtype=torch.int64)  # where others recall, all have to work; nobody sees what it says
    some = prepared.draws.take(asked)
    estimate = torch.zeros_like(prepared.inputs)
    with torch.no_grad():
        said = denoiser(some.x_t(inner.schedule), some.t, some.cond)
    estimate[rows.to(estimate.device)] = said[: len(rows)]
    return inner.beside(prepared.inputs, estimate)


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
    noise: NoiseSettings = option(NoiseSettings(), help="what is done to the noise, where anything is")
    uncertainty: bool = option(
        False, help="whether a weight of each noise level is learned beside the network, so that all count alike"
    )

    def companion(self, schedule: Schedule) -> Companion:
        """See `Objective.companion`."""
        uncertainty = LearnedUncertainty(schedule) if self.uncertainty else None
        return Companion(uncertainty, self.times.history(schedule))

    def prepare(self, denoiser: Denoiser, draws: Draws) -> Prepared:
        """See `Objective.prepare`."""
        d, t = preconditioned(denoiser), draws.t
        c = d.coefficients(t)
        x_t = draws.x_t(d.schedule)
        weight = self.weighting.weight(t, d.schedule, c.out, d.sigma_data)
        inputs, target = over(c.in_, x_t) * x_t, d.target(draws.x_0, draws.eps, t)
        return Prepared(inputs, c.noise.to(x_t.dtype), draws.cond, target, weight.to(x_t.dtype), draws)

    def losses(self, denoiser: Denoiser, prepared: Prepared) -> Tensor:
        """See `Objective.losses`."""
        inputs = network_inputs(denoiser, prepared)
        answer = preconditioned(denoiser).answer(inputs, prepared.noise_level, prepared.cond)
        return prepared.weight * (answer - prepared.target).square().flatten(1).mean(1)

    def slopes(self, answer: Tensor, prepared: Prepared) -> tuple[Tensor, Tensor]:
        """The loss of every example, shape (B,), and its derivative to what the network answers, shape (B, ...)."""
        error = (answer - prepared.target).flatten(1)  # (B, D)
        slope = (2 / error.shape[1] * prepared.weight)[:, None] * error
        return (error * slope).sum(1) / 2, slope.reshape(answer.shape)

    def floors(self, denoiser: Denoiser, oracle: Denoiser, draws: Draws) -> Tensor:
        """See `Objective.floors`."""
        d = preconditioned(denoiser)
        x_0, eps = draws.x_0.double(), draws.eps.double()
        estimate = oracle(add_noise(x_0, eps, d.schedule, draws.t), draws.t, draws.cond)
        out = d.coefficients(draws.t).out
        weight = self.weighting.weight(draws.t, d.schedule, out, d.sigma_data)
        return weight / out**2 * (estimate - x_0).square().flatten(1).mean(1)
