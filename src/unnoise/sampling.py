"""How a model is sampled when nothing else is said, and one run of a sampler, step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .denoisers.base import Condition, Denoiser
from .guidance.base import Guidance, Guided
from .options import Checked, option
from .process.forward import add_noise
from .randomness import NoiseSource
from .samplers.base import Sampler, samplers, trajectory
from .samplers.dpmpp_2m import DPMSolverPPSampler


@dataclass(frozen=True)
class SamplingSettings(Checked):
    """How a model is sampled when nothing else is said."""

    sampler: Sampler = option(DPMSolverPPSampler(), help="how to step", one_of=samplers)
    steps: int = option(20, help="steps from noise to data", low=1, high=100_000)
    grid: str = option("uniform", help="at which times: see `unnoise list grids`")
    guidance: float = option(1.0, help="guidance scale; 1 is the plain conditional model", low=0.0, high=1000.0)


@dataclass(frozen=True)
class Preview:
    """One step of a run.

    Args:
        step: How many steps are made, from 1 on.
        steps: How many there are.
        t: Where the samples now are.
        z: The noisy samples, in the space of the model.
        estimate: What they are estimated to be without noise, in the space of the model.
        decode: From there to the units of the data, which is done only for what is looked at.
    """

    step: int
    steps: int
    t: float
    z: Tensor
    estimate: Tensor
    decode: Callable[[Tensor], Tensor]

    @cached_property
    def x(self) -> Tensor:
        """The noisy samples, in the units of the data."""
        return self.decode(self.z)

    @cached_property
    def denoised(self) -> Tensor:
        """The estimate of the clean samples, in the units of the data."""
        return self.decode(self.estimate)


def previews(
    denoiser: Denoiser,
    rule: Guidance,
    sampler: Sampler,
    grid: Tensor,
    noise: NoiseSource,
    shape: tuple[int, ...],
    decode: Callable[[Tensor], Tensor],
    cond: Condition | None = None,
    negative: Condition | None = None,
    x_0: Tensor | None = None,
) -> Iterator[Preview]:
    """Samples of one batch, step by step.

    Args:
        denoiser: Of the model.
        rule: How it is guided.
        sampler: How to step.
        grid: At which times, shape (steps + 1,), float64.
        noise: Of the samples of the batch.
        shape: Of one sample, in the space of the model.
        decode: From there to the units of the data.
        cond: What is asked for, one row for each sample.
        negative: What to push away from; None is the null condition.
        x_0: What is noised to the first time for the samples to begin from, in the space of the model; None for noise alone.

    Yields:
        Where the samples begin as step 0, then every step.
    """
    first = next(denoiser.parameters(), None)  # exact denoisers have none
    device = torch.device("cpu") if first is None else first.device
    eps = noise.start(shape).to(device)
    if x_0 is None:
        x = float(denoiser.schedule.sigma(grid[0])) * eps
    else:
        x = add_noise(x_0.to(eps), eps, denoiser.schedule, grid[0])
    if cond is not None:  # what networks make of a prompt alone is made here, once for all steps
        if negative is None and rule.from_null:
            negative = denoiser.null_condition(len(x), device)
        if negative is not None and "guidance" in cond:  # the scale of a distilled guidance says how, not what
            negative = {**negative, "guidance": cond["guidance"]}
        plain = Guided(denoiser, rule)
        cond, negative = (
            told and plain.remember({name: value.to(device) for name, value in told.items()})
            for told in (cond, negative)
        )
    steps = len(grid) - 1
    yield Preview(0, steps, float(grid[0]), x, torch.zeros_like(x) if x_0 is None else x_0, decode)
    guided = Guided(denoiser, rule, negative)
    for k, stepped in enumerate(trajectory(sampler, guided, x, grid, cond=cond, noise=noise)):
        yield Preview(k + 1, steps, float(grid[k + 1]), stepped.x, stepped.denoised, decode)


def untouched(x: Tensor) -> Preview:
    """What there is to see of samples that are given, and of which nothing is made anew: no step, and no network.

    Args:
        x: In the units of the data, shape (n, ...).
    """
    return Preview(0, 0, 0.0, x.float(), x.float(), lambda given: given)
