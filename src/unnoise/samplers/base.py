r"""What a sampler is, the step that all deterministic ones share, and the one loop.

A sampler is a value: a frozen dataclass of settings. What it remembers between steps travels in `state`, so one object may
serve any number of runs at once. A step goes from time t to time s < t; the grid of a run has n + 1 times for n steps.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from ..denoisers.base import Condition, Denoiser
from ..errors import BadOption, ShapeError
from ..options import Checked
from ..process.base import Schedule, scales
from ..process.chain import jump
from ..randomness import Noise
from ..registry import Registry


class Stepped(NamedTuple):
    """Where a step has led: x at time s, the estimate of the clean data on the way (a preview), and the sampler's memory."""

    x: Tensor
    denoised: Tensor
    state: Any


class Sampler(Checked, ABC):
    """A frozen dataclass of settings that knows how to make one step."""

    registered_name: ClassVar[str]
    order: int
    """The order at which it converges to the exact solution of the ODE; of stochastic ones, at which their mean does."""
    evaluations: int = 1
    """Network calls a step."""
    stochastic: bool = False
    """Whether it draws fresh noise."""

    @abstractmethod
    def step(
        self,
        denoiser: Denoiser,
        x_t: Tensor,
        t: Tensor,
        s: Tensor,
        state: Any,
        *,
        cond: Condition | None = None,
        noise: Noise | None = None,
    ) -> Stepped:
        """One step from t to s.

        Args:
            denoiser: Gives E[x_0 | x_t, cond].
            x_t: Shape (B, ...).
            t: Where x_t is, shape (), float64.
            s: Where to go, shape (), at least 0 and below t.
            state: What the step before returned; None for the first.
            cond: What is asked for.
            noise: Where stochastic samplers draw from.

        Returns:
            x at s, the estimate of the clean data, the new state.
        """

    def network_calls(self, grid: Tensor) -> int:
        """How many network calls a run over the grid makes."""
        return self.evaluations * (len(grid) - 1)


samplers: Registry[Sampler] = Registry("sampler", "unnoise.samplers")


def toward(denoised: Tensor, x_t: Tensor, schedule: Schedule, t: Tensor | float, s: Tensor | float) -> Tensor:
    r"""The move from t to s that would be exact if the estimate stood still.

    .. math:: x_s = \frac{\sigma_s}{\sigma_t} x_t + \left(\alpha_s - \sigma_s \frac{\alpha_t}{\sigma_t}\right) \hat x_0

    Finite where no signal is left at t, and where no noise is left at s.

    Args:
        denoised: The estimate, shape (B, ...).
        x_t: Shape (B, ...).
        schedule: Alpha and sigma.
        t: Where x_t is.
        s: Where to go.
    """
    (alpha_t, sigma_t), (alpha_s, sigma_s) = scales(schedule, float(t)), scales(schedule, float(s))
    ratio = sigma_s / sigma_t
    gain = alpha_s - ratio * alpha_t
    if ratio == 0:
        return gain * denoised if gain != 1 else denoised
    return torch.add(ratio * x_t, denoised, alpha=gain)


def check_grid(grid: Tensor) -> None:
    """Refuses times that are not a falling row within [0, 1].

    Raises:
        ShapeError: The grid is not a vector of two times or more.
        BadOption: It does not fall strictly, or leaves [0, 1].
    """
    if grid.ndim != 1 or len(grid) < 2:
        raise ShapeError(f"expected a grid of shape (n + 1,) with at least one step, got {tuple(grid.shape)}")
    if not bool((grid.diff() < 0).all()) or float(grid[0]) > 1 or float(grid[-1]) < 0:
        raise BadOption(
            f"expected times that fall strictly from at most 1 to at least 0, got {[round(float(t), 6) for t in grid][:8]} ..."
        )


@torch.no_grad()
def trajectory(
    sampler: Sampler,
    denoiser: Denoiser,
    x: Tensor,
    grid: Tensor,
    *,
    cond: Condition | None = None,
    noise: Noise | None = None,
) -> Iterator[Stepped]:
    """Every step of a run, as it is made.

    Args:
        sampler: How to step.
        denoiser: Gives E[x_0 | x_t, cond].
        x: Where to start, at time grid[0]: sigma(grid[0]) times standard normal noise; shape (B, ...).
        grid: Falling times, shape (n + 1,), float64.
        cond: What is asked for, tensors of the batch's size.
        noise: Where stochastic samplers draw from.

    Yields:
        n steps; the last one's x is at grid[-1].

    Raises:
        ShapeError: The grid has no steps.
        BadOption: The grid does not fall, or a stochastic sampler was given no noise.
    """
    check_grid(grid)
    if sampler.stochastic and noise is None:
        raise BadOption(f"{type(sampler).__name__} draws noise: give it a NoiseSource(seed, sample_indices)")
    state = None
    for t, s in zip(grid[:-1], grid[1:], strict=True):
        stepped = sampler.step(denoiser, x, t, s, state, cond=cond, noise=noise)
        x, state = stepped.x, stepped.state
        yield stepped


def sample(
    sampler: Sampler,
    denoiser: Denoiser,
    x: Tensor,
    grid: Tensor,
    *,
    cond: Condition | None = None,
    noise: Noise | None = None,
) -> Tensor:
    """The end of a run, shape of x; arguments and errors as in `trajectory`."""
    for stepped in trajectory(sampler, denoiser, x, grid, cond=cond, noise=noise):
        x = stepped.x
    return x


def shares(schedule: Schedule, t: Tensor, s: Tensor, eta: float) -> tuple[float, float]:
    r"""How the noise at s is made up when a share of it is drawn afresh.

    Args:
        schedule: Alpha and sigma.
        t: Where the step begins.
        s: Where it ends.
        eta: Fresh noise in units of the standard deviation of x_s given x_t and x_0, in [0, 1].

    Returns:
        The standard deviations of the noise that is carried over and of that which is drawn; their squares sum to sigma_s^2.

    References:
        Denoising Diffusion Implicit Models (Song et al., 2021), Equation 16, https://arxiv.org/abs/2010.02502
    """
    at_t, at_s = scales(schedule, float(t)), scales(schedule, float(s))
    fresh = eta * math.sqrt(jump(*at_t, *at_s).posterior)
    return math.sqrt(max(at_s[1] ** 2 - fresh**2, 0.0)), fresh


def fresh_noise_step(
    denoised: Tensor,
    x_t: Tensor,
    schedule: Schedule,
    t: Tensor,
    s: Tensor,
    kept: float,
    fresh: float | Tensor,
    noise: Noise | None,
) -> Tensor:
    """alpha_s times the estimate, plus `kept` times the noise found in x_t, plus `fresh` times new noise.

    Args:
        denoised: The estimate of the clean data, shape (B, ...).
        x_t: Shape (B, ...).
        schedule: Alpha and sigma.
        t: Where x_t is.
        s: Where to go.
        kept: Standard deviation of the noise that is carried over.
        fresh: Standard deviation of the noise that is drawn.
        noise: Where it is drawn from; not asked when `fresh` is 0.
    """
    (alpha_t, sigma_t), (alpha_s, _) = scales(schedule, float(t)), scales(schedule, float(s))
    ratio = kept / sigma_t
    x_s = torch.add(ratio * x_t, denoised, alpha=alpha_s - ratio * alpha_t) if kept else alpha_s * denoised
    if isinstance(fresh, float) and fresh == 0:
        return x_s
    assert noise is not None
    return x_s + fresh * noise(x_t, float(t), float(s))
