"""Mean and covariance, gathered batch by batch, and the Fréchet distance between two of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from ...errors import DataError, ShapeError

# The smallest eigenvalue over the largest, from which on square roots of eigenvalues lose nothing that counts.
_WELL = 1e-10
_LEAST_SIDE = 64  # of a block of the product, below which blocks cost more than they save


class Moments:
    r"""The mean and the covariance of samples that come in batches, in float64.

    Two that have seen different samples merge into what one would be that had seen them all, so that samples can be
    spread over processes. It holds a D x D matrix and, while it looks, one batch.

    .. math:: S \leftarrow S + S_b + \frac{n\,b}{n + b}\,\delta\delta^\top, \qquad \delta = \mu_b - \mu

    References:
        Updating Formulae and a Pairwise Algorithm for Computing Sample Variances (Chan, Golub and LeVeque, 1979),
        http://i.stanford.edu/pub/cstr/reports/cs/tr/79/773/CS-TR-79-773.pdf

    Args:
        dim: D, the width of the samples.
    """

    def __init__(self, dim: int) -> None:
        self.n = 0
        self.mean = torch.zeros(dim, dtype=torch.float64)
        self._squares = torch.zeros(dim, dim, dtype=torch.float64)

    @classmethod
    def of(cls, batches: Iterable[Tensor]) -> Moments:
        """Of all samples of batches of shape (n, D).

        Raises:
            DataError: There is no batch.
            ShapeError: Batches have different widths.
        """
        moments: Moments | None = None
        for batch in batches:
            moments = cls(batch.shape[-1]) if moments is None else moments
            moments.update(batch)
        if moments is None:
            raise DataError("moments need at least one batch of samples, and there is none")
        return moments

    @property
    def dim(self) -> int:
        """The width of the samples."""
        return len(self.mean)

    @property
    def covariance(self) -> Tensor:
        """The unbiased covariance, over N - 1, shape (D, D).

        Raises:
            DataError: There are fewer than two samples.
        """
        if self.n < 2:
            raise DataError(f"a covariance needs at least 2 samples, got {self.n}")
        return self._squares / (self.n - 1)

    def update(self, batch: Tensor) -> None:
        """Takes in samples.

        Args:
            batch: Shape (n, D), of any floating type.

        Raises:
            ShapeError: The batch has another shape.
        """
        if batch.ndim != 2 or batch.shape[1] != self.dim:
            raise ShapeError(f"expected a batch of shape (n, {self.dim}), got {tuple(batch.shape)}")
        if not len(batch):
            return
        rows = batch.detach().to("cpu", torch.float64)
        mean = rows.mean(0)
        self._add(len(rows), mean, _squares(rows - mean))

    def merge(self, other: Moments) -> None:
        """Takes in what another has seen.

        Raises:
            ShapeError: The other has seen samples of another width.
        """
        if other.dim != self.dim:
            raise ShapeError(f"expected moments of width {self.dim}, got {other.dim}")
        if other.n:
            self._add(other.n, other.mean, other._squares)

    def _add(self, n: int, mean: Tensor, squares: Tensor) -> None:
        total = self.n + n
        delta = mean - self.mean
        self.mean = self.mean + delta * (n / total)
        self._squares += squares
        self._squares.addr_(delta, delta, alpha=self.n * n / total)
        self.n = total

    def state(self) -> dict[str, Tensor]:
        """All that it knows, as tensors for a file."""
        return {"n": torch.tensor(self.n), "mean": self.mean.clone(), "squares": self._squares.clone()}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Moments:
        """The inverse of `state`."""
        moments = cls(len(state["mean"]))
        moments.n = int(state["n"])
        moments.mean, moments._squares = state["mean"].double().clone(), state["squares"].double().clone()
        return moments


def _squares(rows: Tensor) -> Tensor:
    """The product of the transposed rows and the rows, shape (D, D), whose lower blocks mirror the upper ones."""
    width = rows.shape[1]
    some = max(_LEAST_SIDE, -(-width // 4))  # of 16 blocks 10 are worked out
    product = torch.empty(width, width, dtype=rows.dtype)
    for i in range(0, width, some):
        for j in range(i, width, some):
            block = rows[:, i : i + some].T @ rows[:, j : j + some]
            product[i : i + some, j : j + some] = block
            if j > i:
                product[j : j + some, i : i + some] = block.T
    return product


def factor(moments: Moments) -> tuple[Tensor, Tensor]:
    """The square root of the covariance in its own axes: axes (D, r) and standard deviations along them (r,), r the rank.

    Of n samples the rank is at most n - 1. What lies beyond it, or below the rounding of the largest, is rounding itself;
    its square root would not be small, so it is cut away.
    """
    values, axes = torch.linalg.eigh(moments.covariance)
    floor = values[-1] * moments.dim * torch.finfo(torch.float64).eps
    keep = min(moments.dim, moments.n - 1)
    values, axes = values[-keep:], axes[:, -keep:]
    kept = values > floor
    return axes[:, kept], values[kept].sqrt()


def frechet_distance(a: Moments, b: Moments) -> float:
    r"""The squared Fréchet distance of the Gaussians that have these moments.

    .. math:: |\mu_a - \mu_b|^2 + \mathrm{tr}\,\Sigma_a + \mathrm{tr}\,\Sigma_b
        - 2\,\|\Sigma_a^{1/2}\Sigma_b^{1/2}\|_*

    The nuclear norm is the trace of the root of the product in the usual form. It is the same for any factors
    :math:`A A^\top = \Sigma_a`, and a sum of singular values needs no root of rounding noise: two equal moments are
    at distance 0 to rounding, also where there are fewer samples than dimensions.

    Args:
        a: Of one side, at least two samples.
        b: Of the other, of the same width.

    Raises:
        ShapeError: They have other widths.
        DataError: One has fewer than two samples.

    References:
        The Distance between Two Random Vectors with Given Dispersion Matrices (Olkin and Pukelsheim, 1982),
        https://doi.org/10.1016/0024-3795(82)90112-4
    """
    if a.dim != b.dim:
        raise ShapeError(f"expected moments of one width, got {a.dim} and {b.dim}")
    difference = a.mean - b.mean
    traces = a.covariance.trace() + b.covariance.trace()
    cross = _cross_by_triangles(a, b)
    if cross is None:
        axes_a, roots_a = factor(a)
        axes_b, roots_b = factor(b)
        cross = torch.linalg.svdvals(roots_a[:, None] * (axes_a.T @ axes_b) * roots_b).sum()
    return float(difference.square().sum() + traces - 2 * cross)


def _cross_by_triangles(a: Moments, b: Moments) -> Tensor | None:
    """The nuclear norm by Cholesky factors, several times faster, or None where the covariances are too flat for it."""
    if min(a.n, b.n) <= a.dim:
        return None
    lower, failed = torch.linalg.cholesky_ex(a.covariance)
    if int(failed):
        return None
    values = torch.linalg.eigvalsh(lower.T @ b.covariance @ lower)
    return values.sqrt().sum() if values[0] > _WELL * values[-1] else None


def transport(a: Moments, b: Moments) -> tuple[Tensor, Tensor, Tensor]:
    r"""What a sample of either side does to the Fréchet distance, as two quadratic forms.

    Where T is the optimal transport from a to b, a sample x of a moves the distance in proportion to

    .. math:: 2 (\mu_a - \mu_b)^\top (x - \mu_a) + |x - \mu_a|^2 - (x - \mu_a)^\top T\, (x - \mu_a)

    less its mean, because the derivative by :math:`\Sigma_a` is I - T; likewise on the other side with the inverse of T.

    Returns:
        A matrix (r, D) for a, one for b, and weights (r,): the last term is the sum of the squares of the coordinates of
        the matrix times (x - mean), times the weights, which both sides share.
    """
    axes_a, roots_a = factor(a)
    axes_b, roots_b = factor(b)
    left, weights, right = torch.linalg.svd(roots_a[:, None] * (axes_a.T @ axes_b) * roots_b, full_matrices=False)
    return (left / roots_a[:, None]).T @ axes_a.T, (right / roots_b) @ axes_b.T, weights
