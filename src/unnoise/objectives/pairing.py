"""Which noise goes with which sample, so that both lie close together."""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor

from ..errors import MissingExtra
from ..shapes import match


def optimal_pairs(x_0: Tensor, eps: Tensor) -> Tensor:
    """The noise of each sample, such that the sum of squared distances is the smallest there is (optimal transport).

    Args:
        x_0: Clean data, shape (n, ...).
        eps: As much noise, same shape.

    Returns:
        A permutation, shape (n,), int64: sample i goes with eps[i-th entry].

    Raises:
        MissingExtra: SciPy is not installed.
        ShapeError: Shapes do not fit.

    References:
        On implementing 2D rectangular assignment algorithms (Crouse, 2016), https://doi.org/10.1109/TAES.2016.140952
    """
    match("eps", eps, x_0)
    if importlib.util.find_spec("scipy") is None:
        raise MissingExtra("pairing noise with data", "scipy", "train")
    from scipy.optimize import linear_sum_assignment

    # |x - e|^2 but for its squares, which every assignment has in common.
    cost = -(x_0.double().flatten(1) @ eps.double().flatten(1).T)
    return torch.from_numpy(linear_sum_assignment(cost.cpu().numpy())[1])
