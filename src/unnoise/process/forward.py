r"""The closed form of the noising process, one step of it, and every conversion between what a network may predict.

With x_t = alpha x_0 + sigma eps, each of x_0, eps, v, score and velocity fixes the others, given x_t and the time. All
conversions go through x_0.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ..errors import IncompatibleParts
from ..shapes import match, over
from .base import Schedule


def add_noise(x_0: Tensor, eps: Tensor, schedule: Schedule, t: Tensor) -> Tensor:
    r"""Noisy data in one jump, :math:`x_t = \alpha_t x_0 + \sigma_t \varepsilon`.

    Args:
        x_0: Clean data, shape (B, ...).
        eps: Standard normal noise, same shape.
        schedule: Alpha and sigma.
        t: Shape () or (B,), in [0, 1].

    Returns:
        Shape (B, ...).

    Raises:
        ShapeError: Shapes do not fit.

    References:
        Denoising Diffusion Probabilistic Models (Ho et al., 2020), Equation 4, https://arxiv.org/abs/2006.11239
    """
    match("eps", eps, x_0)
    return over(schedule.alpha(t), x_0) * x_0 + over(schedule.sigma(t), x_0) * eps


def noise_step(x_prev: Tensor, eps: Tensor, beta: float | Tensor) -> Tensor:
    r"""One step of the chain, :math:`x_k = \sqrt{1 - \beta_k} x_{k-1} + \sqrt{\beta_k} \varepsilon`.

    Args:
        x_prev: The level before, shape (B, ...).
        eps: Standard normal noise, same shape.
        beta: The variance that the step adds, in [0, 1]: a number, or shape () or (B,).

    Returns:
        Shape (B, ...).

    Raises:
        ShapeError: Shapes do not fit.

    References:
        Denoising Diffusion Probabilistic Models (Ho et al., 2020), Equation 2, https://arxiv.org/abs/2006.11239
    """
    match("eps", eps, x_prev)
    if not isinstance(beta, Tensor):
        return (1 - beta) ** 0.5 * x_prev + beta**0.5 * eps
    return over((1 - beta.double()).sqrt(), x_prev) * x_prev + over(beta.double().sqrt(), x_prev) * eps


def _scales(schedule: Schedule, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    return over(schedule.alpha(t), x), over(schedule.sigma(t), x)


def _rates(schedule: Schedule, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    return over(schedule.alpha_dot(t), x), over(schedule.sigma_dot(t), x)


def _needs_signal(alpha: Tensor, what: str) -> None:
    if bool((alpha == 0).any()):
        raise IncompatibleParts(
            f"{what} does not determine x_0 where no signal is left (alpha = 0): use v, velocity or x_0 there"
        )


def x_0_from_noise(eps: Tensor, x_t: Tensor, schedule: Schedule, t: Tensor) -> Tensor:
    """Clean data from the noise in x_t; raises IncompatibleParts where alpha is 0."""
    alpha, sigma = _scales(schedule, t, x_t)
    _needs_signal(alpha, "the noise")
    return (x_t - sigma * eps) / alpha


def x_0_from_v(v: Tensor, x_t: Tensor, schedule: Schedule, t: Tensor) -> Tensor:
    r"""Clean data from :math:`v = \alpha \varepsilon - \sigma x_0`, for any schedule."""
    alpha, sigma = _scales(schedule, t, x_t)
    return (alpha * x_t - sigma * v) / (alpha**2 + sigma**2)


def x_0_from_score(score: Tensor, x_t: Tensor, schedule: Schedule, t: Tensor) -> Tensor:
    """Clean data from the score (Tweedie's formula); raises IncompatibleParts where alpha is 0."""
    alpha, sigma = _scales(schedule, t, x_t)
    _needs_signal(alpha, "the score")
    return (x_t + sigma**2 * score) / alpha


def x_0_from_velocity(velocity: Tensor, x_t: Tensor, schedule: Schedule, t: Tensor) -> Tensor:
    r"""Clean data from :math:`\dot\alpha x_0 + \dot\sigma \varepsilon`."""
    alpha, sigma = _scales(schedule, t, x_t)
    alpha_dot, sigma_dot = _rates(schedule, t, x_t)
    return (sigma_dot * x_t - sigma * velocity) / (alpha * sigma_dot - alpha_dot * sigma)


def noise_from_x_0(x_0: Tensor, x_t: Tensor, schedule: Schedule, t: Tensor) -> Tensor:
    """The noise in x_t, given clean data; raises IncompatibleParts where sigma is 0."""
    alpha, sigma = _scales(schedule, t, x_t)
    if bool((sigma == 0).any()):
        raise IncompatibleParts("there is no noise to speak of at t = 0: ask at a later time")
    return (x_t - alpha * x_0) / sigma


def v_from_x_0(x_0: Tensor, x_t: Tensor, schedule: Schedule, t: Tensor) -> Tensor:
    r"""v = :math:`\alpha \varepsilon - \sigma x_0`, given clean data; raises IncompatibleParts where sigma is 0."""
    alpha, sigma = _scales(schedule, t, x_t)
    return alpha * noise_from_x_0(x_0, x_t, schedule, t) - sigma * x_0


def score_from_x_0(x_0: Tensor, x_t: Tensor, schedule: Schedule, t: Tensor) -> Tensor:
    r"""The score :math:`-\varepsilon / \sigma`, given clean data; raises IncompatibleParts where sigma is 0."""
    _, sigma = _scales(schedule, t, x_t)
    return -noise_from_x_0(x_0, x_t, schedule, t) / sigma


def velocity_from_x_0(x_0: Tensor, x_t: Tensor, schedule: Schedule, t: Tensor) -> Tensor:
    r""":math:`\dot\alpha x_0 + \dot\sigma \varepsilon`, given clean data; raises IncompatibleParts where sigma is 0."""
    alpha_dot, sigma_dot = _rates(schedule, t, x_t)
    return alpha_dot * x_0 + sigma_dot * noise_from_x_0(x_0, x_t, schedule, t)


def _same(x_0: Tensor, x_t: Tensor, schedule: Schedule, t: Tensor) -> Tensor:
    match("x_0", x_0, x_t)
    return x_0


Conversion = Callable[[Tensor, Tensor, Schedule, Tensor], Tensor]

TO_X_0: dict[str, Conversion] = {
    "noise": x_0_from_noise,
    "x0": _same,
    "v": x_0_from_v,
    "score": x_0_from_score,
    "velocity": x_0_from_velocity,
}
FROM_X_0: dict[str, Conversion] = {
    "noise": noise_from_x_0,
    "x0": _same,
    "v": v_from_x_0,
    "score": score_from_x_0,
    "velocity": velocity_from_x_0,
}


def convert(value: Tensor, x_t: Tensor, schedule: Schedule, t: Tensor, *, have: str, want: str) -> Tensor:
    """One description of the clean data as another.

    Args:
        value: What is known, shape (B, ...).
        x_t: The noisy data, same shape.
        schedule: Alpha and sigma.
        t: Shape () or (B,).
        have: What `value` is: "noise", "x0", "v", "score" or "velocity".
        want: What to return.

    Returns:
        Shape (B, ...).

    Raises:
        IncompatibleParts: `value` does not determine the answer at that time.
        ShapeError: Shapes do not fit.
    """
    match(have, value, x_t)
    if have == want:
        return value
    return FROM_X_0[want](TO_X_0[have](value, x_t, schedule, t), x_t, schedule, t)
