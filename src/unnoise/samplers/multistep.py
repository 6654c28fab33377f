r"""What all linear multistep methods share: a step is one network call and a weighted sum of what is remembered.

On a line of the ODE (see `coordinates.py`), or of the SDE, a step carries x over and adds integrals of the slope F, a
polynomial through its values at the times before:

.. math:: x_s = c(t, s)\, x_t + \sum_j I_j(t, s)\, F_j + \text{noise}

A corrector replaces the integrals of the step before by those of the polynomial that also goes through the slope found
where that step has led; as c x is the same in both, it only adds a sum of slopes to x_t, and costs nothing. All weights
depend on the times alone. They are worked out once and leave, of a step, a handful of tensor operations.
"""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from functools import lru_cache
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..denoisers.base import Condition, Denoiser
from ..process.base import Schedule, log_snr_at, scales
from ..randomness import Noise
from .base import Sampler, Stepped
from .coordinates import flow_line, integrals, noise_line

LONGEST = 1.0
"""In half log-SNR. What is found after a longer step is too rough to correct it by: the error would grow."""

BOUNDS = 3.0, 3.0, 4.0
"""How much an error in the estimates may grow in a step that goes through 2, 3 or 4 of them; else it takes fewer. Steps that
are short bear any number; the bounds are between what equal steps need and what goes astray in runs of 5 to 20 steps."""


class Move(NamedTuple):
    """A step of first order: x_s = on_x x_t + on_denoised D + on_noise z."""

    on_x: float
    on_denoised: float
    on_noise: float = 0.0


class Weights(NamedTuple):
    """A step as tensors see it: x_s = on_x x_t + on_denoised D + sum of on_past F + on_noise z."""

    on_x: float
    on_denoised: float
    on_past: tuple[float, ...]
    on_noise: float
    slope: tuple[float, float] | None
    """The slope is the first times x_t plus the second times D; None where it is D itself."""


class Past(NamedTuple):
    """What is remembered between steps, the newest first."""

    times: tuple[float, ...]
    slopes: tuple[Tensor, ...]
    tried: Tensor | None = None
    """The slope that a start by Heun's rule found at its far end, before it corrected it."""


class LinearMultistep(Sampler):
    """A base of multistep samplers: they say how a step of first order goes, and what the integrals are.

    The first steps have a short past and are of lower order, but the step before is corrected once the slope at its end is
    known, which makes the start good enough for order 3 without a call more. For order 4 the first step is Heun's, with one
    call more, and the first two are corrected together. Steps from or to an end of the line are of first order.
    """

    corrects_start: ClassVar[bool] = True
    """Whether the first steps are corrected, for orders above 2."""

    @property
    @abstractmethod
    def reach(self) -> int:
        """How many estimates the polynomial of a step goes through, the newest included."""

    @property
    def corrected(self) -> int:
        """How many the polynomial of the corrector goes through; 0 where only the start is corrected."""
        return 0

    @abstractmethod
    def move(self, schedule: Schedule, t: float, s: float) -> Move:
        """The step of first order from t to s."""

    @abstractmethod
    def carried(self, schedule: Schedule, t: float, s: float) -> float:
        """The factor c of x_t while the slope stands still at 0."""

    @abstractmethod
    def weigh(self, schedule: Schedule, nodes: tuple[float, ...], t: float, s: float) -> tuple[float, ...]:
        """The integrals I_j of a step from t to s of the polynomial through the slopes at the nodes."""

    @abstractmethod
    def slope(self, schedule: Schedule, t: float) -> tuple[float, float] | None:
        """What makes the slope of x_t and D; None where it is D."""

    def finite(self, schedule: Schedule, t: float) -> bool:
        """Whether the polynomial can go through a time or be integrated up to it."""
        return math.isfinite(log_snr_at(schedule, t))

    def pace(self, t: float) -> float:
        """How fast, in half log-SNR, a step that begins at t forgets x_t."""
        return 1.0

    def network_calls(self, grid: Tensor) -> int:
        """One a step, and one more for a start of order 4."""
        return len(grid) - 1 + int(self.reach == 4 and float(grid[1]) > 0)

    def step(
        self,
        denoiser: Denoiser,
        x_t: Tensor,
        t: Tensor,
        s: Tensor,
        state: Past | None,
        *,
        cond: Condition | None = None,
        noise: Noise | None = None,
    ) -> Stepped:
        """See `Sampler.step`."""
        denoised = denoiser(x_t, t, cond)
        here, there = float(t), float(s)
        times, slopes, tried = state or Past((), ())
        w = _weights(self, denoiser.schedule, (here, *times), there, tried is not None)
        slope = denoised if w.slope is None else _sum(w.slope[0], x_t, w.slope[1], denoised)
        x_s = _sum(w.on_x, x_t, w.on_denoised, denoised)
        for share, before in zip(w.on_past, slopes if tried is None else (*slopes, tried), strict=True):
            x_s.add_(before, alpha=share)
        if w.on_noise:
            assert noise is not None
            x_s.add_(noise(x_t, here, there), alpha=w.on_noise)
        keep = max(self.reach, self.corrected - 1) if self.corrected else self.reach - 1
        past = Past((here, *times)[:keep], (slope, *slopes)[:keep])
        if state is None and self.reach == 4 and there > 0:
            return self._heun(denoiser, x_t, x_s, here, s, Stepped(x_s, denoised, past), cond)
        return Stepped(x_s, denoised, past)

    def _heun(
        self, denoiser: Denoiser, x_t: Tensor, x_s: Tensor, t: float, s: Tensor, euler: Stepped, cond: Condition | None
    ) -> Stepped:
        """The step from t to s by Heun's rule, after Euler's; on the flow's line where this one has no end."""
        schedule, there, past = denoiser.schedule, float(s), euler.state
        ahead = denoiser(x_s, s, cond)
        if self.finite(schedule, t) and distance(schedule, t, there) <= LONGEST:
            ends = self.slope(schedule, there)
            tried = ahead if ends is None else _sum(ends[0], x_s, ends[1], ahead)
            half = self.weigh(schedule, (there, t), t, there)[0]
            x_s = torch.add(x_s, tried - past.slopes[0], alpha=half)
            return Stepped(x_s, euler.denoised, past._replace(tried=tried) if self.corrects_start else past)
        begin, end = flow_line(schedule, t), flow_line(schedule, there)
        change = _sum(end.from_x, x_s, end.from_denoised, ahead)
        change.sub_(_sum(begin.from_x, x_t, begin.from_denoised, euler.denoised))
        x_s = torch.add(x_s, change, alpha=end.scale * (end.k - begin.k) / 2)
        return Stepped(x_s, euler.denoised, Past((), ()))


def _sum(on_x: float, x: Tensor, on_y: float, y: Tensor) -> Tensor:
    """on_x x + on_y y, always a tensor of its own."""
    return (on_x * x).add_(y, alpha=on_y)


@lru_cache(maxsize=65536)
def _weights(sampler: LinearMultistep, schedule: Schedule, times: tuple[float, ...], s: float, tried: bool) -> Weights:
    """The weights of the step from times[0] to s, with the slopes at the times after it in the past."""
    t, past = times[0], len(times) - 1
    move, slope = sampler.move(schedule, t, s), sampler.slope(schedule, t)
    shares = np.zeros(past + 1)
    nodes = tuple(itertools.takewhile(lambda time: sampler.finite(schedule, time), times))
    on_tried = 0.0
    if len(nodes) > 1:
        if sampler.finite(schedule, s):
            _put(shares, _steady(sampler, schedule, nodes[: sampler.reach], t, s))
        carried = sampler.carried(schedule, t, s)
        if tried:
            on_tried = -carried * sampler.weigh(schedule, nodes, nodes[1], t)[0]
        else:
            shares += carried * _correction(sampler, schedule, nodes, past)
    # The weights of a correction sum to 0, and those of the integrals to what `move` has of the slope at t: in terms of
    # differences from that slope, a slope that stands still is integrated exactly, to the last digit.
    on_newest = -float(shares[1:].sum()) - on_tried
    from_x, from_denoised = (0.0, 1.0) if slope is None else slope
    return Weights(
        move.on_x + on_newest * from_x,
        move.on_denoised + on_newest * from_denoised,
        (*shares[1:].tolist(), on_tried) if tried else tuple(shares[1:].tolist()),
        move.on_noise,
        slope,
    )


def _correction(
    sampler: LinearMultistep, schedule: Schedule, nodes: tuple[float, ...], past: int
) -> NDArray[np.float64]:
    """What is added to x at nodes[0], in shares of the slopes at the nodes, now that the one there is known."""
    shares = np.zeros(past + 1)
    t, before = nodes[:2]
    start = sampler.corrects_start and sampler.reach >= 3 and len(nodes) < sampler.reach and not sampler.corrected
    if distance(schedule, before, t) > LONGEST or not (sampler.corrected or start):
        return shares
    if start and len(nodes) == 3:
        # Both steps so far went through two slopes; with the third, both are of third order.
        if distance(schedule, nodes[2], before) > LONGEST:
            return shares
        first = np.array(sampler.weigh(schedule, nodes, nodes[2], before))
        first[1:] -= sampler.weigh(schedule, nodes[1:], nodes[2], before)
        _put(shares, tuple(first * sampler.carried(schedule, before, t)))
    _put(shares, sampler.weigh(schedule, nodes[: sampler.corrected or sampler.reach], before, t))
    _put(shares[1:], _steady(sampler, schedule, nodes[1 : 1 + sampler.reach], before, t), -1)
    return shares


def _steady(
    sampler: LinearMultistep, schedule: Schedule, nodes: tuple[float, ...], t: float, s: float
) -> tuple[float, ...]:
    """The integrals through as many of the nodes as a step of this length bears."""
    for count in range(len(nodes), 1, -1):
        found = sampler.weigh(schedule, nodes[:count], t, s)
        growth = sum(abs(each) for each in found) / abs(sum(found))
        if growth * -math.expm1(-sampler.pace(t) * distance(schedule, t, s)) <= BOUNDS[count - 2]:
            return found
    return sampler.weigh(schedule, nodes[:1], t, s)


def distance(schedule: Schedule, t: float, s: float) -> float:
    """How far s lies from t in half log-SNR; above 0 for s below t."""
    return (log_snr_at(schedule, s) - log_snr_at(schedule, t)) / 2


def _put(shares: NDArray[np.float64], weights: tuple[float, ...], sign: int = 1) -> None:
    shares[: len(weights)] += sign * np.array(weights)


class OnData(LinearMultistep):
    r"""A base of multistep methods for the clean data in half log-SNR :math:`\lambda`, of the ODE and of SDEs.

    .. math:: x_s = \frac{\sigma_s}{\sigma_t} e^{-\tau^2 h} x_t + \alpha_s \int_0^h (1 + \tau^2) e^{-(1 + \tau^2) u}
        D(\lambda_s - u)\, du + \sigma_s \sqrt{1 - e^{-2 \tau^2 h}}\, z, \qquad h = \lambda_s - \lambda_t
    """

    def speed(self, t: float) -> float:
        """Tau squared over the step that begins at t: 0 for the ODE, 1 for the SDE that reverses the process."""
        return 0.0

    def pace(self, t: float) -> float:
        """See `LinearMultistep.pace`."""
        return 1 + self.speed(t)

    def move(self, schedule: Schedule, t: float, s: float) -> Move:
        """See `LinearMultistep.move`."""
        alpha_s, sigma_s = scales(schedule, s)
        carried, h = self.carried(schedule, t, s), distance(schedule, t, s)
        if self.speed(t) == 0:
            return Move(carried, alpha_s - carried * scales(schedule, t)[0])
        fresh = sigma_s * math.sqrt(-math.expm1(-2 * self.speed(t) * h))
        return Move(carried, -alpha_s * math.expm1(-self.pace(t) * h), fresh)

    def carried(self, schedule: Schedule, t: float, s: float) -> float:
        """See `LinearMultistep.carried`."""
        speed, ratio = self.speed(t), scales(schedule, s)[1] / scales(schedule, t)[1]
        return ratio * math.exp(-speed * distance(schedule, t, s)) if speed else ratio

    def weigh(self, schedule: Schedule, nodes: tuple[float, ...], t: float, s: float) -> tuple[float, ...]:
        """See `LinearMultistep.weigh`."""
        pace, alpha_s = self.pace(t), scales(schedule, s)[0]
        *known, begin, end = (log_snr_at(schedule, time) / 2 for time in (*nodes, t, s))
        if len(known) == 2 and known[0] == begin:
            # The straight line through two estimates, taken at the middle of the step as DPM-Solver++ (2M) does: its exact
            # integral is of the same order, and astray by more where steps are long.
            total = -alpha_s * math.expm1(-pace * (end - begin))
            share = total * (end - begin) / (known[0] - known[1]) / 2
            return total + share, -share
        found = integrals(known, begin, end, lambda half_log_snr: pace * np.exp(-pace * (end - half_log_snr)))
        return tuple(alpha_s * each for each in found)

    def slope(self, schedule: Schedule, t: float) -> None:
        """The clean data itself."""


class OnNoise(LinearMultistep):
    """A base of multistep methods for the noise: d(x / alpha) = noise d(sigma / alpha)."""

    def move(self, schedule: Schedule, t: float, s: float) -> Move:
        """See `LinearMultistep.move`."""
        (alpha_t, sigma_t), (alpha_s, sigma_s) = scales(schedule, t), scales(schedule, s)
        return Move(sigma_s / sigma_t, alpha_s - sigma_s / sigma_t * alpha_t)

    def carried(self, schedule: Schedule, t: float, s: float) -> float:
        """See `LinearMultistep.carried`."""
        return scales(schedule, s)[0] / scales(schedule, t)[0]

    def weigh(self, schedule: Schedule, nodes: tuple[float, ...], t: float, s: float) -> tuple[float, ...]:
        """See `LinearMultistep.weigh`; a polynomial in sigma / alpha."""
        *known, begin, end = (noise_line(schedule, time).k for time in (*nodes, t, s))
        return tuple(scales(schedule, s)[0] * each for each in integrals(known, begin, end))

    def slope(self, schedule: Schedule, t: float) -> tuple[float, float]:
        """The noise."""
        alpha, sigma = scales(schedule, t)
        return 1 / sigma, -alpha / sigma

    def finite(self, schedule: Schedule, t: float) -> bool:
        """See `LinearMultistep.finite`: wherever signal is left."""
        return scales(schedule, t)[0] > 0
