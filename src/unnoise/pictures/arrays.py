"""What a picture may be drawn from, as numpy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import ShapeError

Array = Tensor | NDArray[Any] | Sequence[float] | Sequence[int]
Floats = NDArray[np.float64]


def floats(values: Array) -> Floats:
    """The values in float64, on the CPU."""
    if isinstance(values, Tensor):
        values = values.detach().to("cpu", torch.float64).numpy()
    return np.asarray(values, dtype=np.float64)


def series(name: str, values: Array, length: int | None = None) -> Floats:
    """The values as a row of numbers.

    Raises:
        ShapeError: They have another shape, or are not `length` many.
    """
    array = floats(values)
    if array.ndim != 1 or (length is not None and len(array) != length):
        wanted = "(N,)" if length is None else f"({length},)"
        raise ShapeError(f"expected {name} of shape {wanted}, got {array.shape}")
    return array


def vectors(name: str, values: Array) -> Floats:
    """The values as points, shape (N, D) with D of at least 1.

    Raises:
        ShapeError: They have another shape.
    """
    array = floats(values)
    if array.ndim != 2 or array.shape[1] == 0:
        raise ShapeError(f"expected {name} of shape (N, D), got {array.shape}")
    return array
