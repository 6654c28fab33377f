"""Distances between two clouds of samples, with no network in between: 0 only where the two are distributed alike."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import BadOption, DataError, ShapeError
from ..randomness import address, normal

_AT_ONCE = 2**22  # values of one block of distances or projections, to bound memory
_FEW = 8  # dimensions in which distances are summed one by one


def flat(name: str, x: Tensor) -> Tensor:
    """Samples as rows of numbers, shape (N, D), float64, on the CPU.

    Args:
        name: Of the samples, for messages.
        x: Shape (N, ...).

    Raises:
        ShapeError: There are no samples, or they have no coordinates.
        DataError: Some are not finite.
    """
    if x.ndim < 1 or x.numel() == 0:
        raise ShapeError(f"expected {name} of shape (N, ...) with at least one sample, got {tuple(x.shape)}")
    rows = x.detach().to("cpu", torch.float64).reshape(len(x), -1)
    bad = int((~torch.isfinite(rows)).any(1).sum())
    if bad:
        raise DataError(f"{bad} of {len(rows)} samples of {name} hold NaN or infinity: they lie nowhere")
    return rows


def _pair(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    a, b = flat("x", x), flat("y", y)
    if a.shape[1] != b.shape[1]:
        raise ShapeError(f"expected samples of one shape, got x {tuple(x.shape)} and y {tuple(y.shape)}")
    return a, b


def mean_distance(x: Tensor, y: Tensor) -> float:
    """The mean Euclidean distance over all pairs of rows.

    Args:
        x: Shape (N, D), float64.
        y: Shape (M, D), float64.
    """
    rows = max(1, _AT_ONCE // len(y))
    # In many dimensions by a matrix product, which is several times faster. It loses digits where the samples lie close together
    # and far from 0, so they are centred; in float64 what remains is below 1e-7 of their spread.
    by_product = x.shape[1] > _FEW
    mode = "use_mm_for_euclid_dist" if by_product else "donot_use_mm_for_euclid_dist"
    if by_product:
        centre = y.mean(0)
        x, y = x - centre, y - centre
    sums = [torch.cdist(x[i : i + rows], y, compute_mode=mode).sum() for i in range(0, len(x), rows)]
    return float(torch.stack(sums).sum()) / (len(x) * len(y))


def energy_distance(x: Tensor, y: Tensor) -> float:
    r"""The energy distance, :math:`2 E|X - Y| - E|X - X'| - E|Y - Y'|`.

    A V-statistic: pairs of a sample with itself count. At least 0, and 0 only for equal distributions; in the units of
    the data. Of N samples drawn from y itself, it is :math:`E|Y - Y'| / N` on average, which no sampler can be better
    than. SciPy gives the square root of it.

    Args:
        x: Shape (N, ...).
        y: Shape (M, ...).

    Raises:
        ShapeError: The samples do not match, or one side has none.
        DataError: Some samples are not finite.

    References:
        Energy statistics: A class of statistics based on distances (Székely and Rizzo, 2013), Equation 5.1,
        https://doi.org/10.1016/j.jspi.2013.03.018
    """
    a, b = _pair(x, y)
    return 2 * mean_distance(a, b) - mean_distance(a, a) - mean_distance(b, b)


def sliced_wasserstein(x: Tensor, y: Tensor, num_projections: int = 256, order: int = 1, seed: int = 0) -> float:
    r"""The sliced Wasserstein distance: how far the samples must be moved, seen along random directions.

    .. math:: \left(E_\theta \int_0^1 |F_{\theta x}^{-1}(u) - F_{\theta y}^{-1}(u)|^p du\right)^{1/p}

    Each integral is exact for any two numbers of samples; the directions are the same for one seed. Data of one
    coordinate needs no directions, and gives the exact Wasserstein distance.

    Args:
        x: Shape (N, ...).
        y: Shape (M, ...).
        num_projections: Directions that the mean is taken over, at least 1.
        order: p, at least 1.
        seed: Which directions.

    Raises:
        ShapeError: The samples do not match, or one side has none.
        DataError: Some samples are not finite.
        BadOption: `num_projections` or `order` is below 1.

    References:
        Sliced and Radon Wasserstein Barycenters of Measures (Bonneel et al., 2015), Definition 2 and Section 4,
        https://doi.org/10.1007/s10851-014-0506-3
    """
    for name, value in (("num_projections", num_projections), ("order", order)):
        if value < 1:
            raise BadOption(f"{name}: must be at least 1, got {value}")
    a, b = _pair(x, y)
    width = a.shape[1]
    if width == 1:
        return float(_cost(a, b, order).mean()) ** (1 / order)
    some = max(1, _AT_ONCE // (len(a) + len(b)))
    costs = [_cost(a @ part.T, b @ part.T, order) for part in directions(num_projections, width, seed).split(some)]
    return float(torch.cat(costs).mean()) ** (1 / order)


def directions(num: int, width: int, seed: int) -> Tensor:
    """The directions that `sliced_wasserstein` looks along, of length 1 and uniform, shape (num, width), float64."""
    drawn = torch.from_numpy(normal(address(seed, "projections"), range(num), width))
    return drawn / drawn.norm(dim=1, keepdim=True)


def _cost(a: Tensor, b: Tensor, order: int) -> Tensor:
    """The integral of |quantile - quantile|^p for every column of (N, K) and (M, K), shape (K,)."""
    a, b = a.sort(0).values, b.sort(0).values
    n, m = len(a), len(b)
    if n == m:
        return (a - b).abs().pow(order).mean(0)
    # Both quantile functions are constant between two neighbours of these shares, in units of 1 / (n m).
    edges = torch.unique(torch.cat([torch.arange(n + 1) * m, torch.arange(m + 1) * n]))
    first = edges[:-1]
    weights = edges.diff().double() / (n * m)
    return ((a[first // m] - b[first // n]).abs().pow(order) * weights[:, None]).sum(0)
