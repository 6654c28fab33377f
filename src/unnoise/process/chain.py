r"""The discrete Markov chain: its posterior, and the terms of the variational bound.

Levels run from 0 to num_steps - 1; level -1 is clean data. :math:`\beta_k` is the variance that the step from level k - 1
to level k adds, and :math:`\bar\alpha_k` the product of :math:`1 - \beta` up to level k.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import BadOption, ShapeError
from ..shapes import over
from .tabulated import DiscreteSchedule

Denoise = Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]


class Gaussian(NamedTuple):
    """A normal distribution with independent components: mean, shape (B, ...), and the log of its variance, same or (B, 1, ...)."""

    mean: Tensor
    log_variance: Tensor


class StepVariance(NamedTuple):
    """The two classical variances of a reverse step, each as a Python float."""

    beta: float  # of the forward step
    posterior: float  # of the forward step, given x_0


def jump(alpha_t: float, sigma_t: float, alpha_s: float, sigma_s: float) -> StepVariance:
    r"""The variances of a jump from s to t > s, and back, on any schedule.

    Forward, x_t given x_s has variance :math:`\beta = \sigma_t^2 - (\alpha_t / \alpha_s)^2 \sigma_s^2`; given x_0 too, x_s
    given x_t has variance :math:`\beta \sigma_s^2 / \sigma_t^2`.

    References:
        Variational Diffusion Models (Kingma et al., 2021), Appendix A, https://arxiv.org/abs/2107.00630
    """
    beta = sigma_t**2 - (alpha_t / alpha_s) ** 2 * sigma_s**2
    return StepVariance(beta, beta * (sigma_s / sigma_t) ** 2)


def normal_kl(p: Gaussian, q: Gaussian) -> Tensor:
    """KL(p || q) of every component, in nats, shape (B, ...)."""
    difference = p.log_variance - q.log_variance
    return 0.5 * (difference.exp() - 1 - difference + (p.mean - q.mean) ** 2 * torch.exp(-q.log_variance))


def gaussian_nll(x: Tensor, p: Gaussian) -> Tensor:
    """The negative log-density of every component, in nats, shape (B, ...)."""
    return 0.5 * (math.log(2 * math.pi) + p.log_variance + (x - p.mean) ** 2 * torch.exp(-p.log_variance))


def discretized_nll(x: Tensor, p: Gaussian, bin_width: float) -> Tensor:
    """The negative log-probability of the bin around every component, in nats; the outermost bins of [-1, 1] are open.

    Args:
        x: Values in [-1, 1] on a grid with spacing `bin_width`, shape (B, ...).
        p: The decoder's distribution.
        bin_width: 2 / 255 for 8-bit images.

    References:
        Denoising Diffusion Probabilistic Models (Ho et al., 2020), Equation 13, https://arxiv.org/abs/2006.11239
    """
    inverse_std = torch.exp(-0.5 * p.log_variance)
    above, below = (x + bin_width / 2 - p.mean) * inverse_std, (x - bin_width / 2 - p.mean) * inverse_std
    # In the upper half the tail is taken from the other side, where the difference of two numbers near 1 would vanish.
    flip = (above + below) > 0
    high, low = torch.where(flip, -below, above), torch.where(flip, -above, below)
    log_high, log_low = torch.special.log_ndtr(high), torch.special.log_ndtr(low)
    inside = log_high + torch.log(-torch.expm1((log_low - log_high).clamp(max=-1e-30)))
    log_p = torch.where(x <= -1 + bin_width / 4, torch.special.log_ndtr(above), inside)
    return -torch.where(x >= 1 - bin_width / 4, torch.special.log_ndtr(-below), log_p)


@dataclass(frozen=True)
class MarkovChain:
    """The discrete chain of a schedule with levels.

    Args:
        schedule: A discrete schedule.

    Raises:
        BadOption: The schedule has no levels.
    """

    schedule: DiscreteSchedule

    def __post_init__(self) -> None:
        if not self.schedule.num_steps:
            name = type(self.schedule).__name__
            raise BadOption(f"{name} has no levels: a Markov chain needs a discrete schedule such as linear or cosine")

    @cached_property
    def betas(self) -> Tensor:
        """Shape (num_steps,), float64."""
        return self.schedule.betas

    @cached_property
    def alpha_bars(self) -> Tensor:
        """Shape (num_steps,), float64."""
        return self.schedule.alpha_bars

    @cached_property
    def alpha_bars_before(self) -> Tensor:
        """Alpha-bar of the level below each, 1 for level 0; shape (num_steps,), float64."""
        return torch.cat([torch.ones(1, dtype=torch.float64), self.alpha_bars[:-1]])

    @cached_property
    def posterior_variances(self) -> Tensor:
        """The variance of x_{k-1} given x_k and x_0, shape (num_steps,), float64; 0 at level 0."""
        return self.betas * (1 - self.alpha_bars_before) / (1 - self.alpha_bars)

    @cached_property
    def posterior_log_variances(self) -> Tensor:
        """Its log, with level 0 given the value of level 1, where log 0 would stand."""
        variances = self.posterior_variances.clone()
        variances[0] = variances[1] if len(variances) > 1 else self.betas[0]
        return variances.log()

    def time(self, level: Tensor) -> Tensor:
        """The time of a level, (level + 1) / num_steps, float64."""
        return (level.to(torch.float64) + 1) / self.schedule.num_steps

    def _at(self, table: Tensor, level: Tensor, x: Tensor) -> Tensor:
        if level.ndim and level.shape != x.shape[:1]:
            raise ShapeError(f"expected level of shape () or ({len(x)},), got {tuple(level.shape)}")
        return over(table[level.cpu()], x)

    def posterior(self, x_0: Tensor, x_t: Tensor, level: Tensor) -> Gaussian:
        r"""The distribution of the level below, given this one and the clean data.

        Args:
            x_0: Clean data, or an estimate of it, shape (B, ...).
            x_t: Data at `level`, same shape.
            level: Integers, shape () or (B,), in 0 ... num_steps - 1.

        References:
            Denoising Diffusion Probabilistic Models (Ho et al., 2020), Equations 6 and 7, https://arxiv.org/abs/2006.11239
        """
        rest = 1 - self.alpha_bars
        clean = self.alpha_bars_before.sqrt() * self.betas / rest
        noisy = (1 - self.betas).sqrt() * (1 - self.alpha_bars_before) / rest
        mean = self._at(clean, level, x_t) * x_0 + self._at(noisy, level, x_t) * x_t
        return Gaussian(mean, self._at(self.posterior_log_variances, level, x_t))

    def reverse_log_variance(self, fraction: Tensor, level: Tensor) -> Tensor:
        r"""The learned log-variance, :math:`v \ln\beta + (1 - v) \ln\tilde\beta`.

        Args:
            fraction: v, 0 for the posterior's variance and 1 for beta, shape (B, ...).
            level: Integers, shape () or (B,).

        References:
            Improved Denoising Diffusion Probabilistic Models (Nichol & Dhariwal, 2021), Equation 15,
            https://arxiv.org/abs/2102.09672
        """
        high, low = self._at(self.betas.log(), level, fraction), self._at(self.posterior_log_variances, level, fraction)
        return fraction * high + (1 - fraction) * low

    def vlb_term(
        self, x_0: Tensor, x_t: Tensor, level: Tensor, reverse: Gaussian, bin_width: float | None = None
    ) -> Tensor:
        r"""The term of the variational bound at a level: KL(q || p) above level 0, the decoder's negative log-likelihood at it.

        Args:
            x_0: Clean data, shape (B, ...).
            x_t: Data at `level`, same shape.
            level: Integers, shape () or (B,).
            reverse: The model's distribution of the level below.
            bin_width: Spacing of the data's values in [-1, 1] (2 / 255 for 8-bit images); None for continuous data.

        Returns:
            Nats per sample, shape (B,).

        References:
            Denoising Diffusion Probabilistic Models (Ho et al., 2020), Equation 5, https://arxiv.org/abs/2006.11239
        """
        divergence = normal_kl(self.posterior(x_0, x_t, level), reverse)
        decoder = gaussian_nll(x_0, reverse) if bin_width is None else discretized_nll(x_0, reverse, bin_width)
        first = level.to(x_t.device).reshape(-1, *[1] * (x_t.ndim - 1)) == 0
        return torch.where(first, decoder, divergence).flatten(1).sum(1)

    def prior_term(self, x_0: Tensor) -> Tensor:
        """KL of the last level given x_0 against the standard normal, in nats per sample, shape (B,)."""
        last = self.alpha_bars[-1].to(x_0)
        log_variance = torch.log1p(-self.alpha_bars[-1]).to(x_0)
        end = Gaussian(last.sqrt() * x_0, log_variance)
        return normal_kl(end, Gaussian(torch.zeros_like(x_0), torch.zeros_like(log_variance))).flatten(1).sum(1)

    def vlb_terms(self, x_0: Tensor, eps: Tensor, denoise: Denoise, bin_width: float | None = None) -> Tensor:
        """All terms of the variational bound, one network call a level.

        Args:
            x_0: Clean data, shape (B, ...).
            eps: Noise of each level, shape (num_steps, B, ...).
            denoise: (x_t, t) to the model's estimate of x_0 and, where it is learned, the variance fraction (else None,
                and the posterior's variance is taken).
            bin_width: Spacing of the data's values in [-1, 1]; None for continuous data.

        Returns:
            Nats per sample, shape (num_steps + 1, B): the terms of levels 0 ... num_steps - 1, then the prior's. Their sum
            bounds the negative log-likelihood from above.
        """
        terms = []
        for k in range(self.schedule.num_steps):
            level = torch.tensor(k)
            t = self.time(level)
            x_t = over(self.schedule.alpha(t), x_0) * x_0 + over(self.schedule.sigma(t), x_0) * eps[k]
            estimate, fraction = denoise(x_t, t)
            mean, log_variance = self.posterior(estimate, x_t, level)
            if fraction is not None:
                log_variance = self.reverse_log_variance(fraction, level)
            terms.append(self.vlb_term(x_0, x_t, level, Gaussian(mean, log_variance), bin_width))
        return torch.stack([*terms, self.prior_term(x_0)])
