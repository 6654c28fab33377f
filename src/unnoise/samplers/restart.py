"""Restart: where the run leaves an interval of times, noise leads back to the interval's start, and it is run again."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from ..denoisers.base import Condition, Denoiser
from ..errors import BadOption
from ..options import option
from ..randomness import Noise
from .base import Sampler, Stepped, samplers
from .heun import LineName, heun_plan
from .stages import follow, moment, rise

Interval = tuple[float, float, int]


def again(interval: Interval, passed: tuple[float, ...], s: float) -> tuple[float, ...]:
    """The times of one more run through an interval, at the step to s that leaves it; none if this step does not.

    Args:
        interval: Its low and high end, and how often it is repeated.
        passed: The times of the run before s.
        s: Where the step ends.
    """
    low, high, repeats = interval
    if not repeats or not 0 < s <= low < passed[-1]:
        return ()
    top = min(high, passed[0])
    return (top, *(t for t in passed if s < t < top), s)


@samplers.register("restart")
@dataclass(frozen=True)
class RestartSampler(Sampler):
    """Heun's rule, with intervals that are run again from fresh noise, which takes away errors made before.

    An interval (low, high, repeats), in time, is left by the step that ends at its low end or first goes below. Then noise is
    added up to its high end, and the grid's times from there to where the step has ended are run again, as often as `repeats`
    says. An interval that only the step to clean data leaves is not repeated. The fresh noise takes away part of what the steps
    so far did wrong; the deterministic runs between add little of their own.

    References:
        Restart Sampling for Improving Generative Processes (Xu et al., 2023), Algorithm 1, https://arxiv.org/abs/2306.14878
    """

    variants = ({}, {"intervals": ((0.1, 0.4, 2), (0.5, 0.9, 1))}, {"intervals": ()})
    order = 2
    evaluations = 2

    intervals: tuple[Interval, ...] = option(
        ((0.25, 0.5, 1),), help="low end, high end (times) and number of repeats of each interval"
    )
    line: LineName = option(
        "auto", help="where slopes are averaged: noise in sigma / alpha, flow in sigma / (alpha + sigma)"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for low, high, repeats in self.intervals:
            if not 0 < low < high <= 1 or repeats < 0:
                raise BadOption(
                    f"intervals: expected 0 < low < high <= 1 and repeats of at least 0, got ({low:g}, {high:g}, {repeats})"
                )

    @property
    def stochastic(self) -> bool:  # type: ignore[override]
        """Whether an interval is repeated."""
        return any(repeats > 0 for _, _, repeats in self.intervals)

    def network_calls(self, grid: Tensor) -> int:
        """Two a step, repeated ones too, less one if the grid ends at 0."""
        times = tuple(float(t) for t in grid)
        repeated = sum(
            interval[2] * max(len(again(interval, times[:i], times[i])) - 1, 0)
            for i in range(1, len(times))
            for interval in self.intervals
        )
        return 2 * (len(times) - 1 + repeated) - int(times[-1] == 0)

    def step(
        self,
        denoiser: Denoiser,
        x_t: Tensor,
        t: Tensor,
        s: Tensor,
        state: tuple[float, ...] | None,
        *,
        cond: Condition | None = None,
        noise: Noise | None = None,
    ) -> Stepped:
        """See `Sampler.step`; the state is the times that the run has passed."""
        schedule, here, there = denoiser.schedule, float(t), float(s)
        passed = (*(state or ()), here)
        x_s, denoised = follow(heun_plan(schedule, here, there, self.line), denoiser, x_t, t, cond)
        draws = itertools.count()
        for interval in self.intervals:
            times = again(interval, passed, there)
            for _ in range(interval[2] if times else 0):
                assert noise is not None
                on_x, fresh = rise(schedule, there, times[0])
                x_s = torch.add(on_x * x_s, noise(x_t, here, there, draw=next(draws)), alpha=fresh)
                for begin, end in itertools.pairwise(times):
                    plan = heun_plan(schedule, begin, end, self.line)
                    x_s, denoised = follow(plan, denoiser, x_s, moment(begin), cond)
        return Stepped(x_s, denoised, passed)
