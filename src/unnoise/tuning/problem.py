"""What tuning is measured on: noises, and where the exact flow of the model leads them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ..denoisers.base import Condition, Denoiser
from ..errors import BadOption, SamplingDiverged
from ..samplers.arc import ArcSampler
from ..samplers.base import Sampler, sample
from ..samplers.grids import make_grid

MOST_STEPS = 768
"""Of a reference run; a model whose flow has not converged by then is too rough to tune to."""


@dataclass(frozen=True)
class Problem:
    """Starting points of one model, and the converged ends of their trajectories.

    Args:
        denoiser: The model, guided where it will be.
        start: Noise at t = 1, shape (B, ...).
        end: The converged ends, same shape.
        cond: What is asked for, tensors of the batch's size.
        uncertainty: Root mean square change of the ends when the reference's steps were last doubled.
        steps: Of the reference.
    """

    denoiser: Denoiser
    start: Tensor
    end: Tensor
    cond: Condition | None
    uncertainty: float
    steps: int

    def run(self, sampler: Sampler, grid: Tensor) -> Tensor | None:
        """The ends that a sampler reaches, shape (B, ...); None where it loses its way."""
        try:
            return sample(sampler, self.denoiser, self.start, grid, cond=self.cond)
        except SamplingDiverged:
            return None

    def distance(self, sampler: Sampler, grid: Tensor) -> float:
        """The root mean square distance of these ends to the converged ones, over all values; infinite where lost."""
        found = self.run(sampler, grid)
        return math.inf if found is None else root_mean_square(found - self.end)

    def part(self, low: int, high: int) -> Problem:
        """The same for some of the starting points."""
        cond = None if self.cond is None else {name: value[low:high] for name, value in self.cond.items()}
        start, end = self.start[low:high], self.end[low:high]
        return Problem(self.denoiser, start, end, cond, self.uncertainty, self.steps)


def root_mean_square(x: Tensor) -> float:
    """Over all values, in float64."""
    return float(x.double().square().mean().sqrt())


def converged(
    denoiser: Denoiser,
    start: Tensor,
    cond: Condition | None = None,
    tolerance: float = 1e-3,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Problem:
    """Follows the flow with more and more steps until the ends no longer move.

    Args:
        denoiser: Of the model.
        start: Noise at t = 1, shape (B, ...).
        cond: What is asked for.
        tolerance: How far the ends may still move when the steps are doubled, in units of sigma_data.
        progress: Told the steps made, and those that are planned so far.

    Raises:
        BadOption: The ends still move after MOST_STEPS steps.
    """
    sampler, steps, before = ArcSampler(), 48, None
    planned = steps
    while True:
        grid = make_grid("angle", steps, denoiser.schedule, sigma_data=denoiser.sigma_data)
        progress(0, planned)
        end = sample(sampler, denoiser, start, grid, cond=cond)
        progress(steps, planned)
        if before is not None:
            change = root_mean_square(end - before)
            if change <= tolerance * denoiser.sigma_data:
                return Problem(denoiser, start, end, cond, change, steps)
            if 2 * steps > MOST_STEPS:
                raise BadOption(
                    f"the trajectories of this model do not converge: after {steps} steps they still move by {change:.3g} "
                    f"when the steps are doubled (sigma_data {denoiser.sigma_data:.3g}); raise the tolerance above "
                    f"{change / denoiser.sigma_data:.2g}, or lower the guidance scale"
                )
        before, steps = end, 2 * steps
        planned += steps
