r"""Noise of stochastic samplers from one Brownian path a sample, so that other steps see the same path.

The reverse SDE of every schedule, written for :math:`y = \alpha x / \sigma^2`, is a drift along the estimate of the clean data
plus a Brownian motion whose clock is the signal-to-noise ratio :math:`\alpha^2 / \sigma^2`: a step from t to s draws noise of
variance SNR(s) - SNR(t). With the increments of one path, a run of 20 steps and one of 22 are roughly the same picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..process.base import Schedule, log_snr_at
from ..randomness import NoiseSource, address, normal_like

REACH = 32.0
"""The path lives on log-SNRs from -32 to 32."""
DEPTH = 14
"""It is halved so often: its points are 1/256 apart in log-SNR."""


class BrownianNoise(NoiseSource):
    """Noise addressed by interval, as increments of a path that depends on (seed, sample) alone.

    The path is a virtual tree: its value at a point follows from the values at the two ends of the interval that the point
    halves, so nothing is stored and any point can be asked for. Every increment is exactly standard normal after scaling,
    and increments of intervals that do not overlap are independent. Steps shorter than the distance of two points, further
    draws within a step, and steps from data to noise have noise of their own, as `NoiseSource` gives it.

    Args:
        seed: Which world.
        sample_indices: The index of every sample of the batch, at least 0.
        schedule: Whose log-SNR is the clock.

    References:
        Scalable Gradients for Stochastic Differential Equations (Li et al., 2020), Section 4, https://arxiv.org/abs/2001.01328
    """

    def __init__(self, seed: int, sample_indices: Sequence[int], schedule: Schedule) -> None:
        super().__init__(seed, sample_indices)
        self.schedule = schedule
        self._known: dict[int, Tensor] = {}

    def __call__(self, like: Tensor, t: float, s: float, draw: int = 0) -> Tensor:
        """Standard normal noise for one step; see `NoiseSource.__call__`."""
        begin, end = (_point(log_snr_at(self.schedule, float(time))) for time in (t, s))
        if draw or end <= begin:
            return super().__call__(like, t, s, draw)
        before, after = self._value(begin, like), self._value(end, like)
        scale = math.sqrt(_snr(end) - _snr(begin))
        return ((after - before) / scale).to(device=like.device, dtype=like.dtype)

    def _value(self, point: int, like: Tensor) -> Tensor:
        """The path at a point, shape of `like`, float64 on the CPU."""
        if any(value.shape != like.shape for value in self._known.values()):
            self._known.clear()
        if point in self._known:
            return self._known[point]
        low, high = 0, 2**DEPTH
        path = self._ends(low, high, like)
        while point not in path:
            middle = (low + high) // 2
            found = self._known.get(middle)
            if found is None:
                share = (_snr(middle) - _snr(low)) / (_snr(high) - _snr(low))
                spread = math.sqrt(share * (_snr(high) - _snr(middle)))
                found = torch.lerp(path[low], path[high], share).add_(self._draw(middle, like), alpha=spread)
            path[middle] = found
            low, high = (low, middle) if point <= middle else (middle, high)
        # What leads to this point leads most of the way to the next one.
        self._known = path
        return path[point]

    def _ends(self, low: int, high: int, like: Tensor) -> dict[int, Tensor]:
        if low in self._known:
            return {low: self._known[low], high: self._known[high]}
        first = math.sqrt(_snr(low)) * self._draw(low, like)
        return {low: first, high: first + math.sqrt(_snr(high) - _snr(low)) * self._draw(high, like)}

    def _draw(self, point: int, like: Tensor) -> Tensor:
        where = torch.empty(like.shape, dtype=torch.float64)
        return normal_like(address(self.seed, "brownian", point), self.sample_indices, where)


def _point(log_snr: float) -> int:
    share = (min(max(log_snr, -REACH), REACH) + REACH) / (2 * REACH)
    return round(share * 2**DEPTH)


def _snr(point: int) -> float:
    return math.exp(2 * REACH * point / 2**DEPTH - REACH)
