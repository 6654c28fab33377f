"""CFG-Zero*: the unconditional velocity is first brought to its best length, and the first steps stand still."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from ..denoisers.base import Condition, Denoiser
from ..options import option
from ..process.base import Schedule
from ..shapes import over
from .base import Guidance, guidances
from .pair import ask_both, inner


@guidances.register("cfg_zero_star")
@dataclass(frozen=True)
class CFGZeroStar(Guidance):
    r"""Classifier-free guidance away from the unconditional velocity at its best length, standing still at the start.

    .. math:: v = s^\star v_\varnothing + g (v_c - s^\star v_\varnothing), \qquad
        s^\star = \langle v_c, v_\varnothing\rangle / \|v_\varnothing\|^2

    :math:`s^\star v_\varnothing` is the multiple, of each sample by itself, that is nearest to the conditional velocity. v is the
    velocity of flow matching, on any schedule that of :math:`y = x / (\alpha + \sigma)` along :math:`\sigma / (\alpha + \sigma)`:
    up to a factor, y - D. So in estimates :math:`D^\star_\varnothing = y + s^\star (D_\varnothing - y)` stands in for
    :math:`D_\varnothing`. Where the velocity is 0 the estimate is y itself, with which steps of first order leave y where it is;
    the network is not asked there. Steps that end at clean data never stand still.

    References:
        CFG-Zero*: Improved Classifier-Free Guidance for Flow Matching Models (Fan et al., 2025), Sections 3.2 and 3.3,
        https://arxiv.org/abs/2503.18886
    """

    neutral = {"scale": 1.0, "zero_share": 0.0}

    scale: float = option(1.0, help="1 is the plain conditional model, above 1 pushes towards the condition", low=0)
    zero_share: float = option(
        0.04,
        help="nothing moves at times above 1 - zero_share: with 0.04 and 25 even steps or fewer in the first",
        low=0,
        high=1,
    )

    def stepping(self, schedule: Schedule, t: float, s: float, kept: float | None) -> Guidance:
        """Without standing still where the step ends at clean data, or runs the other way."""
        moves = self.zero_share and (s == 0 or s > t)
        return dataclasses.replace(self, zero_share=0.0) if moves else self

    def estimate(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, cond: Condition | None, negative: Condition | None
    ) -> tuple[Tensor, Tensor | None]:
        """See `Guidance.estimate`."""
        stands = t > 1 - self.zero_share
        if cond is None or not bool(stands.any()):
            return self._moving(denoiser, x_t, t, cond, negative)
        still = _still(denoiser.schedule, x_t, t)
        if bool(stands.all()):  # a variance that was learned is not known here: it is taken to be the posterior's
            return still, torch.zeros_like(x_t) if denoiser.learns_variance else None
        guided, fraction = self._moving(denoiser, x_t, t, cond, negative)
        return torch.where(over(stands, x_t).bool(), still, guided), fraction

    def _moving(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, cond: Condition | None, negative: Condition | None
    ) -> tuple[Tensor, Tensor | None]:
        if cond is None or self.scale == 1:
            return denoiser.with_variance(x_t, t, cond)
        wanted, unwanted, fraction = ask_both(denoiser, x_t, t, cond, negative)
        still = _still(denoiser.schedule, x_t, t)
        velocity = still - unwanted  # up to a factor, which the ratio does not see
        tiny = torch.finfo(x_t.dtype).tiny
        best = inner(still - wanted, velocity) / inner(velocity, velocity).clamp(min=tiny)
        start = still - best * velocity
        return start + self.scale * (wanted - start), fraction


def _still(schedule: Schedule, x_t: Tensor, t: Tensor) -> Tensor:
    """The estimate that makes the velocity of flow matching 0."""
    return x_t / over(schedule.alpha(t) + schedule.sigma(t), x_t)
