r"""Arc: Adams' predictor and corrector along the angle between signal and noise.

The derivation. Let s be the standard deviation of the data, :math:`r = \sqrt{\sigma^2 + \alpha^2 s^2}` the spread of noisy
data, and :math:`\theta = \operatorname{atan2}(\sigma, \alpha s)`, which falls from pi / 2 (noise) to 0 (data) on every
schedule. Write :math:`x_t = \alpha x_0 + \sigma \varepsilon` in units of its spread:

.. math:: y = x_t / r = \cos\theta \; x_0 / s + \sin\theta \; \varepsilon .

The probability-flow ODE replaces the derivative of y at fixed x_0 and eps by its average given x_t:

.. math:: \frac{dy}{d\theta} = F = \cos\theta \; \hat\varepsilon - \sin\theta \; \hat x_0 / s
    = \frac{\cos\theta \; y - \hat x_0 / s}{\sin\theta} .

F is what EDM's network is trained to say (up to sign). Three things make this line a good one to step on. It has no linear
part left, so that plain Adams rules apply. Nothing in it is infinite, neither at pure noise nor at clean data. And F is 0 for
round normal data of spread s: what is left to integrate is only how far the data is from that, whereas the estimate and the
noise vary even then. (An s above that spread, by the option `pivot`, gives this up for an F that is smoother at high noise,
where data of many dimensions decides what it becomes.)

A step from theta_t to theta_s integrates the polynomial through the last p values of F exactly (Adams and Bashforth, for uneven
steps). Once F is known at the new place, the step that led there is done again with the polynomial through the new value and
the q - 1 before (Adams and Moulton); that costs no network call, since F at the place first predicted is kept (the mode PEC).
The slopes kept are then off by O(h^{p + 1}), so the rule is of order min(p + 1, q).

A run begins with one slope, and its first step, corrected, is off by O(h^3): on a grid that begins amid the data the whole
is of order 3 at most. From pure noise, where F is nearly 0, that error is hardly seen, and the higher order shows.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from torch import Tensor

from ..denoisers.base import Condition, Denoiser
from ..errors import BadOption, IncompatibleParts
from ..options import option
from ..process.base import Schedule
from ..randomness import Noise
from .base import Sampler, Stepped, samplers
from .coordinates import arc, integrals

NEAREST = 0.25
"""How far apart the slopes of a step must stand, in units of the step, for a polynomial to go through them."""


class _Memory(NamedTuple):
    x: Tensor
    """Where the last step began, corrected."""
    times: tuple[float, ...]
    """Of the slopes, the newest first."""
    slopes: tuple[Tensor, ...]
    made: int = 1
    """Steps."""


class _Rule(NamedTuple):
    """x at the end is on_x x + the sum of on_slopes F."""

    on_x: float
    on_slopes: tuple[float, ...]


@lru_cache(maxsize=65536)
def _rule(schedule: Schedule, times: tuple[float, ...], t: float, s: float, sigma_data: float) -> _Rule:
    """The step from t to s by the polynomial through the slopes at `times`."""
    begin, end = arc(schedule, t, sigma_data), arc(schedule, s, sigma_data)
    nodes = [arc(schedule, time, sigma_data).k for time in times]
    # Slopes that stand close together say little of a step that is much longer, and their weights would be large.
    near = NEAREST * abs(end.k - begin.k)
    first = nodes.index(begin.k)
    many = first + 1
    while many < len(nodes) and abs(nodes[many] - begin.k) >= (many - first) * near:
        many += 1
    on_slopes = tuple(end.scale * w for w in integrals(nodes[:many], begin.k, end.k))
    return _Rule(end.scale / begin.scale, on_slopes)


@lru_cache(maxsize=65536)
def _fitted(
    schedule: Schedule, times: tuple[float, ...], predictor: int, s: float, sigma_data: float, row: tuple[float, ...]
) -> _Rule:
    """The predicted step from times[0] to s, with what a fit adds to its weights."""
    rule = _rule(schedule, times[:predictor], times[0], s, sigma_data)
    begin, end = arc(schedule, times[0], sigma_data), arc(schedule, s, sigma_data)
    step = end.scale * (end.k - begin.k)
    pairs = itertools.zip_longest(rule.on_slopes, row[1:], fillvalue=0.0)
    return _Rule(rule.on_x + step * row[0] / begin.scale, tuple(weight + step * more for weight, more in pairs))


@samplers.register("arc")
@dataclass(frozen=True)
class ArcSampler(Sampler):
    r"""Adams' predictor and corrector along the angle of signal and noise, for few steps. One network call a step.

    The module's text derives it.

    `weights` are for one model and one grid: row i is what was found by fitting (`unnoise tune`) to be missing in step i,

    .. math:: y_s \leftarrow y_s + (\theta_s - \theta_t) \left(w_{i0}\, y_t + \sum_{j \ge 1} w_{ij}\, F_{i + 1 - j}\right)

    in the prediction; corrections stay as they are. Of rules that make one call a step, and whose weights depend on the step
    alone, a row with as many slopes as there are gives any.

    References:
        the ODE and F: Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022),
        https://arxiv.org/abs/2206.00364
        the angle: Progressive Distillation for Fast Sampling of Diffusion Models (Salimans & Ho, 2022), Appendix D,
        https://arxiv.org/abs/2202.00512
        the rules: Solving Ordinary Differential Equations I (Hairer, Norsett & Wanner, 1993), Section III.1 and III.5
        weights that are fitted: S4S: Solving for a Diffusion Model Solver (Frankel et al., 2025), Section 3,
        https://arxiv.org/abs/2502.17423, and Bespoke Solvers for Generative Flow Models (Shaul et al., 2023),
        https://arxiv.org/abs/2310.19075
    """

    tunable = ("pivot",)
    weighable = True
    variants = (
        {},
        {"predictor": 3, "corrector": 4},
        {"predictor": 4, "corrector": 5},
        {"predictor": 3, "corrector": 0},
        {"predictor": 4, "corrector": 0},
    )

    predictor: int = option(2, help="slopes that a step is predicted from", low=1, high=6)
    corrector: int = option(
        3, help="slopes that a step is corrected with once its end is known; 0 never corrects", low=0, high=6
    )
    sigma_data: float | None = option(
        None, help="standard deviation of the encoded data; the model's own by default", low=1e-6
    )

    pivot: float = option(
        1.0,
        help="the noise, sigma / (alpha sigma_data), at which the angle is 45 degrees; above 1 for data of many dimensions",
        low=0.01,
        high=1000.0,
    )
    weights: tuple[tuple[float, ...], ...] = option(
        (), help="for every step, what a fit adds to its weights: on y, then on the slopes from the newest on"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for i, row in enumerate(self.weights):
            if not 1 <= len(row) <= i + 2:
                raise BadOption(
                    f"weights: row {i} must have 1 to {i + 2} numbers (y, and the slopes so far), got {len(row)}"
                )
            if not all(math.isfinite(weight) for weight in row):
                raise BadOption(f"weights: must be finite, got {list(row)} in row {i}")

    @property
    def order(self) -> int:  # type: ignore[override]
        """min(predictor + 1, corrector, 3), or min(predictor, 2) where nothing is corrected: the first step holds it down."""
        return min(self.predictor + 1, self.corrector, 3) if self.corrector else min(self.predictor, 2)

    def check(self, denoiser: Denoiser, grid: Tensor) -> None:
        """See `Sampler.check`: fitted weights are for one number of steps."""
        if self.weights and len(self.weights) != len(grid) - 1:
            raise IncompatibleParts(
                f"arc: weights for {len(self.weights)} steps were given, and the grid has {len(grid) - 1}; take the grid that "
                "they were fitted with, or leave them out"
            )

    def step(
        self,
        denoiser: Denoiser,
        x_t: Tensor,
        t: Tensor,
        s: Tensor,
        state: _Memory | None,
        *,
        cond: Condition | None = None,
        noise: Noise | None = None,
    ) -> Stepped:
        """See `Sampler.step`."""
        schedule, now = denoiser.schedule, float(t)
        spread = self.pivot * (denoiser.sigma_data if self.sigma_data is None else self.sigma_data)
        denoised = denoiser(x_t, t, cond)
        here = arc(schedule, now, spread)
        slope = (here.from_x * x_t).add_(denoised, alpha=here.from_denoised)
        times: tuple[float, ...] = (now,)
        slopes: tuple[Tensor, ...] = (slope,)
        made = 0
        if state is not None:
            times, slopes, made = times + state.times, slopes + state.slopes, state.made
            if self.corrector:
                q = self.corrector
                x_t = _apply(_rule(schedule, times[:q], times[1], now, spread), state.x, slopes)
        if self.weights:
            rule = _fitted(schedule, times, self.predictor, float(s), spread, self.weights[made])
            kept = max(self.predictor, self.corrector, *(len(row) - 1 for row in self.weights))
        else:
            rule = _rule(schedule, times[: self.predictor], now, float(s), spread)
            kept = max(self.predictor, self.corrector)
        x_s = _apply(rule, x_t, slopes)
        return Stepped(x_s, denoised, _Memory(x_t, times[:kept], slopes[:kept], made + 1))


def _apply(rule: _Rule, x: Tensor, slopes: tuple[Tensor, ...]) -> Tensor:
    x = rule.on_x * x
    for weight, slope in zip(rule.on_slopes, slopes, strict=False):
        x.add_(slope, alpha=weight)
    return x
