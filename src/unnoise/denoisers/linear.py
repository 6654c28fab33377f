"""The best linear denoiser of some data: what can be known of a sample from the mean and the covariance alone."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from ..errors import ShapeError
from ..process.base import Schedule
from ..shapes import over, per_sample
from .base import Condition, Denoiser

LARGEST = 2048
"""Of the sides of a matrix whose eigenvectors are found: some seconds on one core."""
EACH = 4
"""Samples for each direction that is told apart; with fewer, chance would be taken for a direction of the data."""


class LinearDenoiser(Denoiser):
    r"""The least squared error that a function linear in x_t can have; exact where the data is one normal distribution.

    .. math:: D(x_t) = m + \alpha C (\alpha^2 C + \sigma^2 I)^{-1} (x_t - \alpha m)

    with the covariance C known by its largest eigenvalues; all other directions share what is left, evenly.

    References:
        Probabilistic Principal Component Analysis (Tipping and Bishop, 1999), Equations 7 and 8,
        https://doi.org/10.1111/1467-9868.00196

    Args:
        mean: Of the data, shape (...).
        directions: Of length 1 and at right angles, shape (K, D), D the numbers of a sample.
        variances: Of the data along each, shape (K,), at least 0.
        rest: Its variance along any other direction, at least 0.
        schedule: Alpha and sigma.

    Raises:
        ShapeError: The shapes do not fit.
    """

    def __init__(self, mean: Tensor, directions: Tensor, variances: Tensor, rest: float, schedule: Schedule) -> None:
        super().__init__()
        if directions.shape != (len(variances), mean.numel()):
            raise ShapeError(
                f"expected directions of shape {(len(variances), mean.numel())}, got {tuple(directions.shape)}"
            )
        self.mean, self.directions, self.variances = mean.double(), directions.double(), variances.double()
        self.rest, self.schedule = rest, schedule
        total = float(self.variances.sum()) + rest * (mean.numel() - len(variances))
        self.sigma_data = (total / mean.numel()) ** 0.5 or 1.0

    @classmethod
    def of(cls, points: Tensor, schedule: Schedule) -> Self:
        """That of some data.

        Args:
            points: The clean data, shape (N, ...); of samples of more than 2,048 numbers, as many samples are looked at, evenly
                spread.
            schedule: Alpha and sigma.
        """
        if points[0].numel() > LARGEST < len(points):
            points = points[torch.arange(LARGEST) * len(points) // LARGEST]
        mean = points.double().mean(0)
        rows = (points.double() - mean).flatten(1) / len(points) ** 0.5  # their products are the covariance
        count, numbers = rows.shape
        kept = max(min(numbers, count // EACH), 1)
        # The eigenvalues of both products are the same, and the smaller matrix is the one that can be worked on.
        values, vectors = torch.linalg.eigh(rows.T @ rows if numbers <= count else rows @ rows.T)
        values, vectors = values.flip(0)[:kept].clamp(min=0), vectors.flip(1)[:, :kept]
        directions = vectors.T if numbers <= count else torch.nn.functional.normalize(vectors.T @ rows, dim=1)
        left = max(float(rows.square().sum() - values.sum()), 0.0)
        return cls(mean, directions, values, left / max(numbers - kept, 1), schedule)

    def forward(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        """See `Denoiser.forward`; whatever is asked for, it says the same.

        Raises:
            ShapeError: x_t has another shape than the data.
        """
        if x_t.shape[1:] != self.mean.shape:
            shape = ", ".join(map(str, ("B", *self.mean.shape)))
            raise ShapeError(f"expected x_t of shape ({shape}), got {tuple(x_t.shape)}")
        x = x_t.double()
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        offset = (x - over(alpha, x) * self.mean.to(x)).flatten(1)  # (B, D)
        alpha, sigma = (per_sample(each, x).to(x)[:, None] for each in (alpha, sigma))  # (B, 1)
        noise = sigma.square().clamp(min=1e-24)
        common = alpha * self.rest / (alpha**2 * self.rest + noise)  # (B, 1)
        variances, directions = self.variances.to(x), self.directions.to(x)
        own = alpha * variances / (alpha**2 * variances + noise)  # (B, K)
        pulled = common * offset + ((own - common) * (offset @ directions.T)) @ directions
        return (self.mean.to(x) + pulled.reshape(x.shape)).to(x_t.dtype)
