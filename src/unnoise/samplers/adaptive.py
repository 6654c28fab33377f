"""Steps of the length that an error asks for: as many network calls as the accuracy takes, and no grid to choose."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..denoisers.base import Condition, Denoiser
from ..options import option
from ..process.base import Schedule
from ..randomness import Noise
from ._embedded import Problem, Reached, Slope, Tolerance, between
from .base import Sampler, Stepped, samplers
from .coordinates import flow_line


class AdaptiveState(NamedTuple):
    """How far the steps have come, which is at the end of the last step made or beyond it."""

    reached: Reached
    end: float
    """Where on the line the steps end."""
    x: Tensor
    """What the last step returned: who has changed it since begins anew."""

    @property
    def calls(self) -> int:
        """Network calls so far."""
        return self.reached.calls

    @property
    def evaluations(self) -> Tensor:
        """How often each sample was evaluated, shape (B,), int64."""
        return self.reached.evaluations


@samplers.register("adaptive")
@dataclass(frozen=True)
class AdaptiveSampler(Sampler):
    r"""Steps as long as an error allows: a Runge-Kutta rule of order 5 with an error estimate of order 4.

    The grid says where previews are wanted, and costs nothing.

    Steps are made in :math:`k = \sigma / (\alpha + \sigma)`, the time of flow matching, where the slope is bounded from noise to
    data; each sample has its own. x at the grid's times is read off the curve through the last step, at order 4. Below
    :math:`k = \sqrt{tol} / 10` the estimate stands still, with an error far below the tolerance.

    References:
        A family of embedded Runge-Kutta formulae (Dormand and Prince, 1980), Table 2,
        https://doi.org/10.1016/0771-050X(80)90013-3
    """

    rtol: float = option(1e-4, help="largest error of a step, as a share of x", low=1e-13, high=1.0)
    atol: float = option(1e-4, help="largest error of a step, in units of clean data", low=1e-13, high=1.0)
    max_calls: int = option(10_000, help="network calls of a run, after which it stops with an error", low=8)

    order = 5
    evaluations = 6

    def network_calls(self, grid: Tensor) -> int | None:
        """None: the calls made are known on the way, as `state.calls`."""
        return None

    def step(
        self,
        denoiser: Denoiser,
        x_t: Tensor,
        t: Tensor,
        s: Tensor,
        state: AdaptiveState | None,
        *,
        cond: Condition | None = None,
        noise: Noise | None = None,
    ) -> Stepped:
        """See `Sampler.step`.

        Raises:
            ToleranceNotMet: The tolerance was not reached within `max_calls`, or cannot be.
        """
        schedule, shape = denoiser.schedule, x_t.shape
        here, there = flow_line(schedule, float(t)), flow_line(schedule, float(s))
        goes_on = state is not None and (x_t is state.x or torch.equal(x_t, state.x))
        end = state.end if goes_on and state is not None else min(self._end, here.k)
        problem = Problem(
            slope_of(denoiser, shape, cond), here.k, end, Tolerance(self.rtol, self.atol, self.max_calls),
            name=lambda k: f"t = {float(times(schedule, torch.tensor([k]))[0]):.6g}",
        )  # fmt: skip
        if goes_on and state is not None:
            reached = state.reached
        else:
            reached = problem.start(x_t.flatten(1) / here.scale)
            if state is not None and len(state.evaluations) == len(x_t):
                calls, evaluations = state.calls + reached.calls, state.evaluations + reached.evaluations
                reached = reached._replace(calls=calls, evaluations=evaluations)
        until = max(there.k, end)
        reached = problem.advance(reached, until)
        y = between(reached, until)
        if there.k < end:
            y = y + (there.k - end) * reached.slope
        k = reached.k.to(y)[:, None]
        denoised = (reached.y - k * reached.slope).reshape(shape)
        x_s = denoised if there.k == 0 else (there.scale * y).reshape(shape)
        return Stepped(x_s, denoised, AdaptiveState(reached, end, x_s))

    @property
    def _end(self) -> float:
        return max(0.1 * math.sqrt(max(self.rtol, self.atol)), 1e-6)


def times(schedule: Schedule, k: Tensor) -> Tensor:
    """The times at which sigma / (alpha + sigma) has values k, shape of k, float64."""
    return schedule.time_of(2 * (torch.log1p(-k) - k.log()))


def slope_of(denoiser: Denoiser, shape: torch.Size, cond: Condition | None) -> Slope:
    """The slope of x / (alpha + sigma), noise minus clean data, of samples in rows.

    Args:
        denoiser: Gives E[x_0 | x_t, cond].
        shape: Of the whole batch, (B, ...).
        cond: What is asked for, tensors of the batch's size.
    """
    schedule = denoiser.schedule

    def slope(k: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        t = times(schedule, k)
        scale = (schedule.alpha(t) + schedule.sigma(t)).to(y)[:, None]
        x = (scale * y).reshape(-1, *shape[1:])
        some, asked = of_rows(denoiser, cond, rows, shape[0])
        denoised = some(x, t.to(y.device), asked).flatten(1)
        return (y - denoised) / k.to(y)[:, None]

    return slope


def of_rows(denoiser: Denoiser, cond: Condition | None, rows: Tensor, batch: int) -> tuple[Denoiser, Condition | None]:
    """The denoiser and the condition of some samples of a batch."""
    if len(rows) == batch:
        return denoiser, cond
    asked = None if cond is None else {name: value[rows.to(value.device)] for name, value in cond.items()}
    return denoiser.rows(rows), asked
