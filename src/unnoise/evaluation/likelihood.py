r"""How likely data is under a model: the exact log-density of what the probability-flow ODE makes of noise.

Noise that flows along :math:`dy / dk = F(y, k)` becomes data whose log-density is that of the noise plus the integral of the
divergence of F on the way, so data is carried to noise and the divergence summed up. It is solved in
:math:`k = \sigma / (\alpha + \sigma)` with the steps of the adaptive sampler, in float64; the network keeps its own precision.

References:
    Neural Ordinary Differential Equations (Chen et al., 2018), Theorem 1, https://arxiv.org/abs/1806.07366
    Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021), Equation 39,
    https://arxiv.org/abs/2011.13456
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..codecs.base import Codec
from ..denoisers.base import Condition, Denoiser
from ..errors import BadOption, IncompatibleParts, ShapeError
from ..process.base import Schedule, scales, time_at
from ..randomness import address, random_words, uniform
from ..samplers._embedded import Problem, Reached, Slope, Tolerance
from ..samplers.adaptive import of_rows, slope_of, times
from .intervals import half_widths

MOST_EXACT = 16
"""Numbers a sample up to which the divergence is exact if nothing else is said; above, it is estimated by probes."""
PROBES = 4  # of the estimate, if nothing else is said
_SMOOTH = 0.01  # the noise, as a share of the signal, from which on data is taken to be smooth

LogDensity = Callable[[Tensor], Tensor]
"""Points (B, ...) to their log-density in nats, (B,)."""


class Moments(NamedTuple):
    """The mean and the covariance of clean data: noised to t = 1, the prior is taken to be the normal distribution with theirs."""

    mean: Tensor
    """Shape of one sample."""
    covariance: Tensor
    """Shape (D, D) for D numbers a sample."""


@dataclass(frozen=True)
class Likelihood:
    """The log-likelihood of some samples.

    Args:
        log_prob: The log-density of each, in nats, in the space of the denoiser, shape (B,), float64.
        half_width: Half the width of the 95 % interval over the probes, shape (B,); 0 where the divergence is exact.
        prior: The log-density of their noise at t = 1, shape (B,).
        noise: Where each has flowed to at t = 1, shape (B, ...), float64.
        probes: Probes of the divergence; 0 where it is exact.
        calls: Network calls, each for all samples that were still on the way.
        evaluations: How often each sample was evaluated, shape (B,).
    """

    log_prob: Tensor
    half_width: Tensor
    prior: Tensor
    noise: Tensor
    probes: int
    calls: int
    evaluations: Tensor


def log_likelihood(
    denoiser: Denoiser,
    x_0: Tensor,
    *,
    cond: Condition | None = None,
    prior: LogDensity | Moments | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    t_start: float | None = None,
    probes: int | None = None,
    seed: int = 0,
    indices: Sequence[int] | None = None,
    max_calls: int = 100_000,
) -> Likelihood:
    r"""The log-likelihood of clean data.

    At t = 0 the score of a network is not known, and for data on a line or a finite set it has no limit. Below `t_start` the
    score is therefore taken to stand still: exact to fourth order in sigma / alpha over the width of the data where its density
    is smooth, and a density that integrates to 1 in any case.

    Args:
        denoiser: Gives E[x_0 | x_t, cond]; gradients must flow through it.
        x_0: In the denoiser's space, shape (B, ...).
        cond: For the likelihood given a condition, tensors of the batch's size.
        prior: The density at t = 1: a log-density, or the moments of the data. By default N(0, sigma(1)^2), where samplers start,
            so that the likelihood is that of what they make. Noised data itself differs where some signal is left at t = 1.
        rtol: Largest error of a step, as a share of x and of the log-likelihood so far.
        atol: Largest error of a step, in units of clean data and in nats.
        t_start: Where the score begins to stand still, in (0, 1); by default where networks are trained from, or where
            sigma / alpha is 0.01 if that is earlier.
        probes: Random directions in which the divergence is measured, 0 for all (exact, one gradient for each number of a sample).
            By default 0 up to 16 numbers a sample, else 4.
        seed: Which probes.
        indices: The numbers of the samples, whose probes are the same in any batch; 0 ... B - 1 by default.
        max_calls: Network calls after which it stops with an error.

    Raises:
        ShapeError: The samples have no numbers, or there are not as many indices.
        BadOption: An option is out of range.
        ToleranceNotMet: The tolerance was not reached within `max_calls`, or cannot be.
    """
    indices = range(len(x_0)) if indices is None else indices
    schedule, shape, size = denoiser.schedule, x_0.shape, math.prod(x_0.shape[1:])
    probes = default_probes(size) if probes is None else probes
    start = min(schedule.t_min, time_at(schedule, -2 * math.log(_SMOOTH))) if t_start is None else t_start
    _check(x_0, indices, probes, start)
    directions = _directions(size, probes, seed, indices).to(x_0.device)
    tolerance = Tolerance(rtol, atol, max_calls)

    (alpha, sigma), (alpha_1, sigma_1) = scales(schedule, start), scales(schedule, 1.0)
    y = torch.cat([x_0.detach().flatten(1).double(), x_0.new_zeros(len(x_0), max(probes, 1), dtype=torch.float64)], 1)
    groups = (size, y.shape[1] - size)
    still = _with_divergence(_standing_score(denoiser, start, shape, cond), size, directions)
    first = _solve(Problem(still, 0.0, 1.0, tolerance, groups, lambda q: f"t = {start * math.sqrt(q):.6g}"), y)

    # From the scale of clean data to that of the line, which a density notices.
    left = alpha / (alpha + sigma)
    y = torch.cat([left * first.y[:, :size], first.y[:, size:] + size * math.log(left)], 1)
    flowing = _with_divergence(slope_of(denoiser, shape, cond), size, directions)
    ends = sigma / (alpha + sigma), sigma_1 / (alpha_1 + sigma_1)
    problem = Problem(
        flowing, *ends, tolerance, groups, lambda k: f"t = {float(times(schedule, torch.tensor([k]))[0]):.6g}"
    )
    last = _solve(problem, y)

    noise = ((alpha_1 + sigma_1) * last.y[:, :size]).reshape(shape)
    density = _prior(prior, schedule, shape)
    at_noise = density(noise).double()
    totals = last.y[:, size:] + (at_noise + size * math.log(alpha_1 + sigma_1))[:, None]
    widths = half_widths(totals).to(totals) if probes else torch.zeros_like(at_noise)
    return Likelihood(
        totals.mean(1), widths, at_noise, noise, probes,
        first.calls + last.calls, first.evaluations + last.evaluations,
    )  # fmt: skip


def default_probes(size: int) -> int:
    """How many probes there are if nothing is said: 0, the exact divergence, up to 16 numbers a sample, else 4."""
    return 0 if size <= MOST_EXACT else PROBES


def _check(x_0: Tensor, indices: Sequence[int], probes: int, start: float) -> None:
    if x_0.ndim < 2 or x_0.numel() == 0:
        raise ShapeError(f"expected samples of shape (B, ...), got {tuple(x_0.shape)}")
    if len(indices) != len(x_0):
        raise ShapeError(f"expected {len(x_0)} indices, one for each sample, got {len(indices)}")
    if probes < 0:
        raise BadOption(f"probes: must be at least 0, got {probes}")
    if not 0 < start < 1:
        raise BadOption(f"t_start: must lie between 0 and 1, got {start:g}")


def _solve(problem: Problem, y: Tensor) -> Reached:
    return problem.advance(problem.start(y), problem.end)


def _standing_score(denoiser: Denoiser, start: float, shape: torch.Size, cond: Condition | None) -> Slope:
    r"""The slope of :math:`z = x / \alpha` in :math:`q = (\kappa / \kappa_{start})^2`, for the score at `start`.

    In z noise is only added: :math:`dz / d\kappa = -\kappa \nabla \ln p` for :math:`\kappa = \sigma / \alpha`, and
    :math:`-\kappa^2 \nabla \ln p = z - D`.
    """
    alpha, _ = scales(denoiser.schedule, start)
    t = torch.tensor(start, dtype=torch.float64)

    def slope(q: Tensor, z: Tensor, rows: Tensor) -> Tensor:
        some, asked = of_rows(denoiser, cond, rows, shape[0])
        denoised = some(alpha * z.reshape(-1, *shape[1:]), t, asked).flatten(1)
        return (z - denoised) / 2

    return slope


def _directions(size: int, probes: int, seed: int, indices: Sequence[int]) -> Tensor:
    """Where the divergence is measured: unit vectors (D, 1, D), or probes of -1 and 1 for each sample (P, B, D)."""
    if not probes:
        return torch.eye(size, dtype=torch.float64)[:, None]
    words = [random_words(address(seed, "probe", p), indices, -(-size // 32)) for p in range(probes)]
    bits = (np.stack(words)[..., None] >> np.arange(32, dtype=np.uint64)) & np.uint64(1)
    return torch.from_numpy(bits.reshape(probes, len(indices), -1)[..., :size].astype(np.float64) * 2 - 1)


def _with_divergence(slope: Slope, size: int, directions: Tensor) -> Slope:
    """The slope of (y, log-density lost on the way): F, and its divergence in each probe or in all directions together."""
    exact = directions.shape[1] == 1 and len(directions) == size

    @torch.enable_grad()
    def both(k: Tensor, state: Tensor, rows: Tensor) -> Tensor:
        y = state[:, :size].detach().requires_grad_()
        rates = slope(k, y, rows)
        chosen = directions if directions.shape[1] == 1 else directions[:, rows.to(directions.device)]
        found = []
        for i, v in enumerate(chosen):
            (gradient,) = torch.autograd.grad(rates, y, v.expand_as(rates), retain_graph=i + 1 < len(chosen))
            found.append((gradient * v).sum(1))
        traces = torch.stack(found, 1)
        return torch.cat([rates.detach(), traces.sum(1, keepdim=True) if exact else traces], 1)

    return both


def _prior(prior: LogDensity | Moments | None, schedule: Schedule, shape: torch.Size) -> LogDensity:
    if prior is not None and not isinstance(prior, Moments):
        return prior
    alpha, sigma = scales(schedule, 1.0)
    size = math.prod(shape[1:])
    if prior is None:
        return lambda x: -0.5 * ((x / sigma).square().flatten(1).sum(1) + size * math.log(2 * math.pi * sigma**2))
    covariance = alpha**2 * prior.covariance.double() + sigma**2 * torch.eye(size, dtype=torch.float64)
    normal = torch.distributions.MultivariateNormal(alpha * prior.mean.double().flatten(), covariance)
    return lambda x: normal.log_prob(x.flatten(1).cpu()).to(x.device)


# In the units of the data


def log_volume(codec: Codec, shape: tuple[int, ...]) -> float:
    """By how much, in nats, the log-density in the units of the data is above that in the space of the codec.

    Args:
        codec: One that shifts and scales every value.
        shape: Of one sample, as the data has it.

    Raises:
        IncompatibleParts: The codec does more than that, so that a density of the data is not defined by it.
    """
    ends = [codec.encode(torch.full((1, *shape), value, dtype=torch.float64)) for value in (0.0, 1.0, 2.0)]
    rise, again = ends[1] - ends[0], ends[2] - ends[1]
    if tuple(codec.shape(shape)) != tuple(shape) or not torch.allclose(rise, again) or not bool((rise != 0).all()):
        name = getattr(codec, "registered_name", type(codec).__name__)
        raise IncompatibleParts(
            f"the codec {name!r} does more than shift and scale: data has no density under this model"
        )
    return float(rise.abs().log().sum())


def dequantised(x: Tensor, seed: int, indices: Sequence[int]) -> Tensor:
    """Whole numbers as numbers anywhere in their cells, x + u with u uniform in (-1/2, 1/2), float64.

    The cell of a number holds what is rounded to it, as samples of pictures are; the mean log-density over it bounds the
    log-probability of the number from below.

    Args:
        x: Shape (B, ...), whole numbers such as pixels of 0 ... 255.
        seed: Which u.
        indices: The number of each sample, at least 0.

    References:
        A note on the evaluation of generative models (Theis et al., 2016), Section 3.1, https://arxiv.org/abs/1511.01844
    """
    u = uniform(address(seed, "dequantise"), indices, math.prod(x.shape[1:])) - 0.5
    return x.double() + torch.from_numpy(u).to(x.device).reshape(x.shape)


def bits_per_dim(nats: float, size: int) -> float:
    """A negative log-likelihood in bits for each of the `size` numbers of a sample."""
    return nats / (size * math.log(2))
