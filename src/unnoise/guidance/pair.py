"""What is asked for and what is pushed away from, as two estimates that one batched network call gives."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..denoisers.base import Condition, Denoiser
from ..nn.conditions import joined


class Pair(NamedTuple):
    """Two estimates of the clean data, shape (B, ...) each."""

    wanted: Tensor
    """With the condition."""
    unwanted: Tensor
    """With the negative condition, or with none."""
    fraction: Tensor | None
    """That of the variance of the first, where one was learned."""

    def at(self, scale: float) -> Tensor:
        """unwanted + scale (wanted - unwanted)."""
        return self.unwanted + scale * (self.wanted - self.unwanted)


def unwanted_condition(denoiser: Denoiser, x_t: Tensor, negative: Condition | None) -> Condition:
    """What to push away from: the null condition, with what the negative condition says in its place."""
    null = denoiser.null_condition(len(x_t), x_t.device)
    return null if negative is None else {**null, **negative}


def ask_both(denoiser: Denoiser, x_t: Tensor, t: Tensor, cond: Condition, negative: Condition | None) -> Pair:
    """Both estimates, in one call of twice the batch; arguments as in `Guidance.estimate`."""
    null = denoiser.null_condition(len(x_t), x_t.device)
    both = joined({**null, **cond}, {**null, **(negative or {})})
    times = t if t.ndim == 0 else torch.cat([t, t])
    if denoiser.self_conditioned:  # what it recalls is needed twice, too
        denoiser = denoiser.rows(torch.arange(len(x_t)).repeat(2))
    estimates, fraction = denoiser.with_variance(torch.cat([x_t, x_t]), times, both)
    wanted, unwanted = estimates.chunk(2)
    return Pair(wanted, unwanted, None if fraction is None else fraction.chunk(2)[0])


def extrapolated(
    denoiser: Denoiser, x_t: Tensor, t: Tensor, cond: Condition | None, negative: Condition | None, scale: float
) -> tuple[Tensor, Tensor | None]:
    """The estimate of classifier-free guidance, in a single call of the batch where the scale is 1 or 0, or nothing is asked for.

    Arguments and results as in `Guidance.estimate`.
    """
    if cond is None or scale == 1:
        return denoiser.with_variance(x_t, t, cond)
    if scale == 0:
        return denoiser.with_variance(x_t, t, unwanted_condition(denoiser, x_t, negative))
    pair = ask_both(denoiser, x_t, t, cond, negative)
    return pair.at(scale), pair.fraction


def inner(a: Tensor, b: Tensor) -> Tensor:
    """The inner product of every sample of two batches of shape (B, ...): shape (B, 1, ..., 1)."""
    return (a * b).sum(tuple(range(1, a.ndim)), keepdim=True)
