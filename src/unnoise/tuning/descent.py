r"""Levenberg's and Marquardt's method, for samples of which a few are far off.

Where a sample lies near an edge between two modes, a small change of the solver sends it to the one or the other. Such samples
have the largest distances and the largest derivatives, and hold for nothing but themselves: a descent of the plain sum of
squares runs after them and ends soon, in one of many small hollows. So the squared distance d of a sample counts as

.. math:: \rho(d) = c \log(1 + d / c),

which is d where d is small against c, and next to constant where it is large. With a small c at first, and a larger one then,
all samples show the way to where the few are to be met.

References:
    An Algorithm for Least-Squares Estimation of Nonlinear Parameters (Marquardt, 1963), https://doi.org/10.1137/0111030
    graduated losses: Visual Reconstruction (Blake & Zisserman, 1987), Chapter 3; the loss is Cauchy's, as weights of the squares
    in Bundle Adjustment - A Modern Synthesis (Triggs et al., 2000), Section 4.3
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

NUDGE = 0.005
"""Of a number, for a difference quotient."""

TRIES = 8
"""At a larger damping each, until the loss falls."""

Residual = Callable[[Tensor], Tensor | None]
"""Of the numbers, shape (p,): how far each sample is from where it should be, shape (B, d); None where there is no run."""


def descend(
    residual: Residual,
    here: Tensor,
    rounds: int,
    cap: float = math.inf,
    progress: Callable[[Tensor], None] = lambda left: None,
) -> Tensor:
    """Moves numbers downhill.

    Args:
        residual: What should become small; it must be there at the beginning.
        here: Where to begin, shape (p,), float64.
        rounds: Each p evaluations for the derivatives, and a few to try.
        cap: The squared distance c of a sample from which on it counts less; infinite for plain squares.
        progress: Told what is left after every round.

    Returns:
        The numbers, shape (p,).
    """
    left = residual(here)
    assert left is not None
    damping, slow = 1e-2, 0
    for _ in range(rounds):
        before = _loss(left, cap)
        found = _try(residual, here, *_normal(residual, here, left, cap), damping, before, cap)
        if found is None:
            break
        here, left, damping = found
        progress(left)
        slow = slow + 1 if _loss(left, cap) > 0.996 * before else 0
        if slow == 2:
            break
    return here


def _distances(left: Tensor) -> Tensor:
    return left.double().square().sum(1)


def _loss(left: Tensor, cap: float) -> float:
    d = _distances(left)
    return float(d.sum() if math.isinf(cap) else cap * torch.log1p(d / cap).sum())


def _normal(residual: Residual, here: Tensor, left: Tensor, cap: float) -> tuple[Tensor, Tensor]:
    """J^T W J and J^T W r, with the weights W = rho' of the samples."""
    columns = []
    for i in range(len(here)):
        nudged = here.clone()
        nudged[i] += NUDGE
        ahead = residual(nudged)
        columns.append(torch.zeros_like(left) if ahead is None else (ahead - left) / NUDGE)
    weights = 1 / (1 + _distances(left) / cap)
    normal = torch.zeros(len(here), len(here), dtype=torch.float64)
    slope = torch.zeros(len(here), dtype=torch.float64)
    for part in torch.arange(len(left)).split(max(1, 2**20 // left.shape[1])):  # in float64 a part at a time
        jacobian = torch.stack([column[part].double() for column in columns], 2)
        weighted = weights[part][:, None, None] * jacobian
        normal += torch.einsum("bdp,bdq->pq", weighted, jacobian).cpu()
        slope += torch.einsum("bdp,bd->p", weighted, left[part].double()).cpu()
    return normal, slope


def _try(
    residual: Residual, here: Tensor, normal: Tensor, slope: Tensor, damping: float, before: float, cap: float
) -> tuple[Tensor, Tensor, float] | None:
    """A step downhill: the new place, what is left there, and the next damping; None where none is found."""
    diagonal = normal.diagonal()
    # Marquardt's scale, by which units do not matter, and some of Levenberg's: what says nothing must not run far.
    scale = torch.diag(diagonal + 0.1 * diagonal.mean() + 1e-30)
    for _ in range(TRIES):
        step = torch.linalg.solve(normal + damping * scale, slope)
        there = here - step * min(1.0, 1.0 / float(step.abs().max().clamp(min=1e-30)))
        ahead = residual(there)
        if ahead is not None and _loss(ahead, cap) < before:
            return there, ahead, max(damping / 4, 1e-7)
        damping *= 4
    return None
