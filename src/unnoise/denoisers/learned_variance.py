"""A denoiser that learned the variance of its reverse steps too."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..errors import ShapeError
from .base import Condition, Denoiser, PreconditionedDenoiser


class LearnedVarianceDenoiser(Denoiser):
    r"""Splits a network's doubled output into the prediction and the variance fraction v.

    The log-variance of a reverse step lies between that of the posterior and that of the forward step,
    :math:`v \ln \beta + (1 - v) \ln \tilde\beta`, with v = (output + 1) / 2.

    Args:
        inner: A denoiser whose network gives twice as many channels as it takes.

    References:
        Improved Denoising Diffusion Probabilistic Models (Nichol & Dhariwal, 2021), Equation 15,
        https://arxiv.org/abs/2102.09672
    """

    def __init__(self, inner: PreconditionedDenoiser) -> None:
        super().__init__()
        self.inner = inner
        self.schedule = inner.schedule
        self.sigma_data = inner.sigma_data
        self.learns_variance = True
        self.self_conditioned = inner.self_conditioned

    def with_variance(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> tuple[Tensor, Tensor]:
        """The estimate and the variance fraction, both of the shape of x_t.

        Raises:
            ShapeError: The network does not give twice the channels.
        """
        answer, skip, out = self.inner.raw(x_t, t, cond)
        if answer.shape[1] != 2 * x_t.shape[1]:
            raise ShapeError(
                f"a learned variance needs {2 * x_t.shape[1]} output channels, the network gives {answer.shape[1]}"
            )
        prediction, variance = torch.chunk(answer, 2, dim=1)
        return skip * x_t + out * prediction, (variance + 1) / 2

    def forward(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        """E[x_0 | x_t, cond]; see `Denoiser.forward`."""
        return self.with_variance(x_t, t, cond)[0]

    def null_condition(self, batch: int, device: torch.device | None = None) -> Condition:
        """The network's null condition."""
        return self.inner.null_condition(batch, device)

    def remember(self, cond: Condition | None) -> Condition | None:
        """See `Denoiser.remember`."""
        return self.inner.remember(cond)

    def recalling(self, estimate: Tensor) -> LearnedVarianceDenoiser:
        """See `Denoiser.recalling`."""
        return LearnedVarianceDenoiser(self.inner.recalling(estimate)) if self.self_conditioned else self

    def through(self, change: Callable[[nn.Module], nn.Module]) -> LearnedVarianceDenoiser:
        """See `Denoiser.through`."""
        return LearnedVarianceDenoiser(self.inner.through(change))

    def rows(self, index: Tensor) -> LearnedVarianceDenoiser:
        """See `Denoiser.rows`."""
        inner = self.inner.rows(index)
        return self if inner is self.inner else LearnedVarianceDenoiser(inner)
