r"""Problems whose answers are known exactly: what samplers are held against on a user's own machine.

Clean data whose numbers are independent of each other, each from two normal distributions about a centre,
:math:`x_0 = c \pm m + s z`. With c taken off, :math:`v = \alpha^2 s^2 + \sigma^2` and half the log-odds b of the upper one,

.. math:: D(x, t) = \frac{\alpha s^2 x + \sigma^2 m \tanh(\alpha m x / v + b)}{v} .

In :math:`u = \sigma / (\alpha + \sigma)` the probability-flow ODE of every schedule is one and the same,

.. math:: \frac{dy}{du} = \frac{(u - (1 - u) s^2) \, y - u m \tanh((1 - u) m y / v + b)}{v} ,
    \qquad y = x / (\alpha + \sigma), \quad v = (1 - u)^2 s^2 + u^2,

and smooth from noise to data. m = 0 is a normal distribution, s = 0 a single point.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...denoisers.base import Condition, Denoiser
from ...process.base import Schedule, scales
from ...randomness import NoiseSource
from ...samplers.base import Sampler, sample

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Data:
    """Two normal distributions for each number of a sample; all lists are as long as a sample.

    Args:
        centre: c, between the two.
        half: m, half their distance.
        std: s, of each.
        tilt: b, half the log-odds of the upper one.
    """

    centre: tuple[float, ...]
    half: tuple[float, ...]
    std: tuple[float, ...]
    tilt: tuple[float, ...]

    @property
    def spread(self) -> float:
        """The standard deviation over all values about the mean of each."""
        of_sign = 1 - np.tanh(self.tilt) ** 2
        return float(np.sqrt(np.mean(np.square(self.std) + np.square(self.half) * of_sign)))


MIXTURE = Data((0.2, -0.1, 0.0), (1.0, 0.7, 1.2), (0.4, 0.6, 0.5), (0.3, -0.5, 0.0))
NORMAL = Data((1.0,), (0.0,), (0.5,), (0.0,))
ROUND = Data((0.0,) * 3, (0.0,) * 3, (0.5,) * 3, (0.0,) * 3)
POINT = Data((0.7, -0.3, 0.1), (0.0,) * 3, (0.0,) * 3, (0.0,) * 3)


class _Weights(NamedTuple):
    """D = base + on_x x + on_sign tanh(slope x + bias); each of shape (M,)."""

    base: Tensor
    on_x: Tensor
    on_sign: Tensor
    slope: Tensor
    bias: Tensor


@lru_cache(maxsize=65536)
def _weights_at(data: Data, schedule: Schedule, t: float) -> _Weights:
    return _weights(data, *scales(schedule, t))


def _weights(data: Data, alpha: float | Floats, sigma: float | Floats) -> _Weights:
    centre, half, std, tilt = (np.asarray(v) for v in (data.centre, data.half, data.std, data.tilt))
    v = alpha**2 * std**2 + sigma**2
    on_x, slope = alpha * std**2 / v, alpha * half / v
    parts = (centre - on_x * alpha * centre, on_x, sigma**2 * half / v, slope, tilt - slope * alpha * centre)
    return _Weights(*(torch.from_numpy(part) for part in parts))


class ExactDenoiser(Denoiser):
    """The exact posterior mean of such data, which keeps the times it was asked at.

    Args:
        data: What is clean.
        schedule: Alpha and sigma.
    """

    def __init__(self, data: Data, schedule: Schedule) -> None:
        super().__init__()
        self.data, self.schedule, self.sigma_data = data, schedule, data.spread or 1.0
        self.times: list[float] = []

    def forward(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        """See the module's text; see `Denoiser.forward`."""
        x = x_t.double()
        if t.ndim:  # times of their own
            self.times.extend(t.tolist())
            weights = _weights(self.data, *(f(t)[:, None].numpy() for f in (self.schedule.alpha, self.schedule.sigma)))
        else:
            self.times.append(float(t))
            weights = _weights_at(self.data, self.schedule, self.times[-1])
        sign = torch.addcmul(weights.bias, weights.slope, x).tanh_()
        return torch.addcmul(weights.base, weights.on_x, x).addcmul_(weights.on_sign, sign).to(x_t.dtype)


class NormalFlow(ExactDenoiser):
    """Where the flow's path through x_t ends, for normal data: what a consistency model gives."""

    def forward(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        """See the class; t of shape ()."""
        self.times.append(float(t))
        alpha, sigma = scales(self.schedule, self.times[-1])
        (centre,), (std,) = self.data.centre, self.data.std
        return centre + std / math.hypot(alpha * std, sigma) * (x_t - alpha * centre)


class CheapDenoiser(Denoiser):
    """0.3 x, and the times it was asked at: for counting calls, where what comes out does not matter."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.schedule = schedule
        self.times: list[float] = []

    def forward(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        """See the class."""
        self.times.append(float(t.max()))
        return 0.3 * x_t


class SteadyNoise:
    """The same normal numbers for every step, and the intervals that were asked for: as quick as noise can be."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, float]] = []
        self._known: dict[tuple[int, ...], Tensor] = {}

    def __call__(self, like: Tensor, t: float, s: float, draw: int = 0) -> Tensor:
        """See `Noise.__call__`."""
        self.asked.append((float(t), float(s)))
        if like.shape not in self._known:
            self._known[tuple(like.shape)] = NoiseSource(0, range(len(like))).start(like.shape[1:], torch.float64)
        return self._known[tuple(like.shape)].to(like)


def start(data: Data, schedule: Schedule, t: float, normal: Tensor) -> Tensor:
    """Standard normal noise as something that looks like noisy data at time t; shape of `normal`, (B, M)."""
    alpha, sigma = scales(schedule, t)
    return alpha * torch.tensor(data.centre, dtype=normal.dtype) + math.hypot(alpha * data.spread, sigma) * normal


def end_of_flow(data: Data, schedule: Schedule, x: Tensor, t: float, s: float) -> Tensor:
    """Where the probability-flow ODE leads from x at t to s, with an error of at most about 1e-11.

    By the classical Runge-Kutta rule in numpy, with the step halved until that changes nothing: nothing of what is proven, nor of
    torch, has a part in it.

    Args:
        data: What is clean; no single points, near which the slope has no bound.
        schedule: Alpha and sigma.
        x: Shape (B, M), float64.
        t: Where x is.
        s: Where to go.
    """
    (alpha, sigma), (alpha_s, sigma_s) = scales(schedule, t), scales(schedule, s)
    centre = np.asarray(data.centre)
    y = (x.numpy() - alpha * centre) / (alpha + sigma)
    y = _solved(data, sigma / (alpha + sigma), sigma_s / (alpha_s + sigma_s), y.tobytes(), y.shape)
    return torch.from_numpy(alpha_s * centre + (alpha_s + sigma_s) * y)


@cache
def _solved(data: Data, begin: float, end: float, raw: bytes, shape: tuple[int, ...]) -> Floats:
    y = np.frombuffer(raw).reshape(shape)
    steps, rough = 500, _runge_kutta(data, begin, end, y, 500)
    while True:
        steps *= 2
        fine = _runge_kutta(data, begin, end, y, steps)
        if np.abs(fine - rough).max() < 1e-11:
            return fine
        assert steps < 64_000
        rough = fine


def _runge_kutta(data: Data, begin: float, end: float, y: Floats, steps: int) -> Floats:
    half, std, tilt = (np.asarray(v) for v in (data.half, data.std, data.tilt))
    square, h = std**2, (end - begin) / steps

    def slope(u: float, y: Floats) -> Floats:
        v = (1 - u) ** 2 * square + u**2
        found: Floats = ((u - (1 - u) * square) * y - u * half * np.tanh((1 - u) * half / v * y + tilt)) / v
        return found

    for k in range(steps):
        u = begin + k * h
        first = slope(u, y)
        second = slope(u + h / 2, y + h / 2 * first)
        third = slope(u + h / 2, y + h / 2 * second)
        y = y + h / 6 * (first + 2 * second + 2 * third + slope(u + h, y + h * third))
    return y


class Response(NamedTuple):
    """How far the end of a run is off for normal data."""

    mean: float
    std: float
    bent: float
    """How far the sampler is from affine; where it is not, the other two say nothing."""


def response(sampler: Sampler, denoiser: ExactDenoiser, grid: Tensor) -> Response:
    """What a run makes of normal data, exactly, for a sampler that is affine there; x has one number.

    A first run notes which noise is asked for. Then one batch has a run without any noise, one for each noise alone at 1, and
    one with all of them at once, which tells whether the sampler is affine.
    """
    data, schedule, first = denoiser.data, denoiser.schedule, float(grid[0])
    nothing = start(data, schedule, first, torch.zeros(1, 1, dtype=torch.float64))
    places: dict[tuple[float, float, int], int] = {}

    def noted(like: Tensor, t: float, s: float, draw: int = 0) -> Tensor:
        places.setdefault((float(t), float(s), draw), len(places) + 2)
        return torch.zeros_like(like)

    def unit(like: Tensor, t: float, s: float, draw: int = 0) -> Tensor:
        drawn = torch.zeros_like(like)
        place = places[float(t), float(s), draw]
        drawn[place], drawn[-1] = 1, math.sin(place)
        return drawn

    sample(sampler, denoiser, nothing, grid, noise=noted)
    normal = torch.zeros(len(places) + 3, 1, dtype=torch.float64)
    normal[1], normal[-1] = 1, math.sin(1)
    x = sample(sampler, denoiser, start(data, schedule, first, normal), grid, noise=unit)
    parts = x[1:-1, 0] - x[0, 0]
    together = torch.arange(1, len(parts) + 1, dtype=torch.float64).sin() @ parts
    bent = abs(float(x[-1, 0] - x[0, 0] - together))
    return Response(float(x[0, 0]) - data.centre[0], float(parts.square().sum().sqrt()) - data.std[0], bent)
