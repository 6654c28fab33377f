"""The hybrid objective: mean squared error for the mean, the variational bound for the variance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..denoisers.base import Denoiser
from ..denoisers.learned_variance import LearnedVarianceDenoiser
from ..errors import IncompatibleParts
from ..options import option
from ..process.chain import Gaussian, MarkovChain
from ..process.tabulated import DiscreteSchedule
from ..shapes import over
from .base import Draws, Objective, Prepared, objectives
from .mse import MSEObjective, network_inputs, preconditioned
from .noise import NoiseSettings
from .times import TimeDensity, UniformTimes, time_densities
from .weightings import UniformWeighting, Weighting, weightings


@objectives.register("hybrid")
@dataclass(frozen=True)
class HybridObjective(Objective):
    """The plain squared error, and the variational bound for a variance that is learned too.

    L_simple + weight L_vlb; the bound moves the variance only, its gradient to the mean is stopped.

    The paper's weight of 0.001 counts the bound in nats a component, where OpenAI's code counts it in bits: 1.44 times as much.

    References:
        Improved Denoising Diffusion Probabilistic Models (Nichol & Dhariwal, 2021), Equation 16,
        https://arxiv.org/abs/2102.09672
    """

    times: TimeDensity = option(
        UniformTimes(), help="which times are trained; levels of the chain", one_of=time_densities
    )
    weighting: Weighting = option(UniformWeighting(), help="weighting of the squared error", one_of=weightings)
    condition_dropout: float = option(
        0.1, help="share of samples that are trained without their condition", low=0, high=1
    )
    noise: NoiseSettings = option(NoiseSettings(), help="what is done to the noise, where anything is")
    vlb_weight: float = option(0.001, help="weight of the bound, as a sum over levels, in nats a component", low=0)
    bin_width: float | None = option(
        None, help="spacing of the data's values: 2/255 for 8-bit images; none for continuous data"
    )

    learns_variance = True

    @property
    def _mse(self) -> MSEObjective:
        return MSEObjective(self.times, self.weighting, self.condition_dropout, self.noise)

    def prepare(self, denoiser: Denoiser, draws: Draws) -> Prepared:
        """See `Objective.prepare`.

        Raises:
            IncompatibleParts: The denoiser learns no variance, or its schedule has no levels.
        """
        if not isinstance(denoiser, LearnedVarianceDenoiser):
            raise IncompatibleParts(
                "the hybrid objective needs a denoiser that learns a variance: set denoiser.learned_variance=true"
            )
        if not isinstance(denoiser.schedule, DiscreteSchedule):
            raise IncompatibleParts("the hybrid objective needs a discrete schedule such as linear or cosine")
        places = draws.t * denoiser.schedule.num_steps
        if bool(((places - places.round()).abs() > 1e-6).any()):
            raise IncompatibleParts(
                "the hybrid objective is defined at the levels of the chain: use objective.times=uniform"
            )
        return self._mse.prepare(denoiser, draws)

    def losses(self, denoiser: Denoiser, prepared: Prepared) -> Tensor:
        """See `Objective.losses`."""
        inner = preconditioned(denoiser)
        answer = inner.answer(network_inputs(denoiser, prepared), prepared.noise_level, prepared.cond)
        prediction, variance = torch.chunk(answer, 2, dim=1)
        simple = prepared.weight * (prediction - prepared.target).square().flatten(1).mean(1)
        d = prepared.draws
        schedule = inner.schedule
        assert isinstance(schedule, DiscreteSchedule)
        x_t = d.x_t(schedule)
        c = inner.coefficients(d.t)
        estimate = over(c.skip, x_t) * x_t + over(c.out, x_t) * prediction.detach()
        chain = MarkovChain(schedule)
        level = (d.t * schedule.num_steps).round().long() - 1
        reverse = Gaussian(
            chain.posterior(estimate, x_t, level).mean, chain.reverse_log_variance((variance + 1) / 2, level)
        )
        bound = chain.vlb_term(d.x_0, x_t, level, reverse, self.bin_width) / d.x_0[0].numel()
        return simple + self.vlb_weight * schedule.num_steps * bound

    def floors(self, denoiser: Denoiser, oracle: Denoiser, draws: Draws) -> Tensor:
        """The floor of the squared error alone; the bound's own floor is not known, and may be negative."""
        return self._mse.floors(denoiser, oracle, draws)

    @property
    def has_floor(self) -> bool:
        """Only without the bound, whose floor is not known."""
        return self.vlb_weight == 0
