r"""What a sampler is, the step that all deterministic ones share, and the one loop.

A sampler is a value: a frozen dataclass of settings. What it remembers between steps travels in `state`, so one object may
serve any number of runs at once. A step goes from time t to time s < t; the grid of a run has n + 1 times for n steps.
What a step needs of the schedule are a few numbers that depend on the times alone: they are worked out once, in float64, and
remembered (`coefficients` of each sampler), so that a step is the network's call and a handful of tensor operations.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from ..denoisers.base import Condition, Denoiser
from ..errors import BadOption, SamplingDiverged, ShapeError
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
    order: int | None
    """The order at which it converges at least to the exact solution of the ODE, on grids even or uneven, wherever they begin.
    Of stochastic ones that of the same rule without its noise; what they draw is right to order 2 at most. None of those that
    solve no equation."""
    evaluations: int = 1
    """Network calls a step."""
    stochastic: bool = False
    """Whether it draws fresh noise."""
    wants_consistency: ClassVar[bool] = False
    """Whether it takes D for the end of the flow's path, which only a consistency model gives."""
    variants: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)
    """Options with which it is proven and compared; the first are its defaults."""
    proven_too: ClassVar[tuple[Mapping[str, Any], ...]] = ()
    """More options with which it is proven, but not compared: they say little that the variants do not."""
    tunable: ClassVar[tuple[str, ...]] = ()
    """Options, positive numbers, that may be fitted to a model as its times are."""
    weighable: ClassVar[bool] = False
    """Whether it has an option `weights`: for every step a row of what a fit adds to the weights on x and on the slopes."""
    inverts: ClassVar[bool] = False
    """Whether it also steps from s up to t > s, from data to noise."""

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

    def network_calls(self, grid: Tensor) -> int | None:
        """How many network calls a run over the grid makes; None where that shows only on the way (adaptive steps)."""
        return self.evaluations * (len(grid) - 1)

    def kept_noise(self, schedule: Schedule, t: float, s: float) -> float | None:
        """How much of the noise found at t a step to s carries over, as a standard deviation; the rest is drawn afresh.

        Args:
            schedule: Alpha and sigma.
            t: Where the step begins.
            s: Where it ends.

        Returns:
            sigma_s of a sampler that draws nothing; None where no one number says it.
        """
        return None if self.stochastic else scales(schedule, s)[1]

    def check(self, denoiser: Denoiser, grid: Tensor) -> None:
        """Refuses, before the first step, a denoiser or a grid that this sampler cannot work with.

        Raises:
            IncompatibleParts: It cannot; the message names what can.
        """


samplers: Registry[Sampler] = Registry("sampler", "unnoise.samplers")


def family(names: Iterable[str] = (), proven_too: bool = False) -> list[Sampler]:
    """Every sampler in all of its variants, each once.

    Args:
        names: Which; all that are registered by default.
        proven_too: Whether with the options that it is only proven with as well.

    Raises:
        UnknownName: No sampler is called so.
    """
    made: list[Sampler] = []
    for name in names or samplers:
        kind = samplers[name]
        for options in (*kind.variants, *(kind.proven_too if proven_too else ())):
            sampler = samplers.build({"name": name, **options})
            if sampler not in made:
                made.append(sampler)
    return made


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
    on_x, on_denoised = _toward(schedule, float(t), float(s))
    return mix(on_x, x_t, on_denoised, denoised)


@lru_cache(maxsize=65536)
def _toward(schedule: Schedule, t: float, s: float) -> tuple[float, float]:
    (alpha_t, sigma_t), (alpha_s, sigma_s) = scales(schedule, t), scales(schedule, s)
    ratio = sigma_s / sigma_t
    return ratio, alpha_s - ratio * alpha_t


def mix(on_x: float, x: Tensor, on_y: float, y: Tensor) -> Tensor:
    """on_x x + on_y y, in as few operations as it takes."""
    if on_x == 0:
        return y if on_y == 1 else on_y * y
    return (on_x * x).add_(y, alpha=on_y)


def check_grid(grid: Tensor, rising: bool = False) -> None:
    """Refuses times that are not a falling row within [0, 1].

    Args:
        grid: The times, shape (n + 1,).
        rising: Whether a row that rises throughout is as good.

    Raises:
        ShapeError: The grid is not a vector of two times or more.
        BadOption: It does not fall strictly, or leaves [0, 1]; the message names the entries.
    """
    if grid.ndim != 1 or len(grid) < 2:
        raise ShapeError(f"expected a grid of shape (n + 1,) with at least one step, got {tuple(grid.shape)}")
    times = [float(t) for t in grid]
    outside = [(i, t) for i, t in enumerate(times) if not 0 <= t <= 1]
    if outside:
        raise BadOption(f"expected times in [0, 1], got {_entries(outside)}")
    if rising and all(a < b for a, b in itertools.pairwise(times)):
        return
    stuck = [(i, times[i]) for i in range(1, len(times)) if times[i] >= times[i - 1]]
    if stuck:
        raise BadOption(
            f"expected times that fall strictly, but these do not lie below the one before: {_entries(stuck)}"
        )


def _entries(found: Sequence[tuple[int, float]], most: int = 4) -> str:
    shown = ", ".join(f"entry {i} = {t:.6g}" for i, t in found[:most])
    return shown if len(found) <= most else f"{shown} and {len(found) - most} more"


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

    A self-conditioned denoiser is told the estimate of the step before, in all of a step's calls alike: what is solved within
    a step is one equation. In the first step it sees zeros. Likewise a denoiser that wants to know is told where the step goes.

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
        IncompatibleParts: The sampler cannot work with this denoiser or grid.
        SamplingDiverged: What came out of a step is infinite or not a number.
    """
    check_grid(grid, sampler.inverts)
    if sampler.stochastic and noise is None:
        raise BadOption(f"{type(sampler).__name__} draws noise: give it a NoiseSource(seed, sample_indices)")
    sampler.check(denoiser, grid)
    times = grid.unbind()
    state, told = None, denoiser
    for k in range(len(times) - 1):
        t, s = float(times[k]), float(times[k + 1])
        asked = told.stepping(t, s, sampler.kept_noise(denoiser.schedule, t, s))
        stepped = sampler.step(asked, x, times[k], times[k + 1], state, cond=cond, noise=noise)
        x, state, told = stepped.x, stepped.state, denoiser.recalling(stepped.denoised)
        if not math.isfinite(x.sum()):
            _check_finite(x, sampler, k + 1, times)
        yield stepped


def _check_finite(x: Tensor, sampler: Sampler, step: int, times: Sequence[Tensor]) -> None:
    broken = ~x.isfinite().flatten(1).all(1)
    if bool(broken.any()):
        raise SamplingDiverged(
            f"{getattr(sampler, 'registered_name', type(sampler).__name__)}: {int(broken.sum())} of {len(x)} samples are no "
            f"longer numbers after step {step} of {len(times) - 1} (from t = {float(times[step - 1]):.6g} to "
            f"{float(times[step]):.6g}): the network has answered with NaN or infinity, or the steps are too long; take a "
            "model whose training went well, more steps, or a lower guidance scale"
        )


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


def shares(schedule: Schedule, t: Tensor | float, s: Tensor | float, eta: float) -> tuple[float, float]:
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
