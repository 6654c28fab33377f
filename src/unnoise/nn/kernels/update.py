"""The kernel of AdamW's update, for float32 on a CPU."""

from __future__ import annotations

import math
from ctypes import c_float, c_int, c_int64, c_void_p
from functools import cache
from typing import Any

import torch
from torch import Tensor

from .library import library


def fused(*vectors: Tensor) -> bool:
    """Whether the kernel can work on these vectors, each in one piece: float32 on a CPU, and a compiler at hand."""
    return all(x.is_cpu and x.dtype == torch.float32 for x in vectors) and library() is not None


def adamw(
    weights: Tensor,
    gradient: Tensor,
    first: Tensor,
    second: Tensor,
    average: Tensor,
    *,
    updates: float,
    learning_rate: float,
    betas: tuple[float, float],
    eps: float,
    decay: float,
    clip: float,
    share: float,
) -> float:
    """Clips a gradient, makes one update of AdamW, brings the new weights into their average, and zeroes the gradient; in place.

    Args:
        weights: Of shape (n,), as are the next four.
        gradient: Of the loss; zero afterwards.
        first: The gradient's moving average.
        second: That of its square.
        average: The weights' moving average.
        updates: Made so far, this one among them.
        learning_rate: Of this update.
        betas: Memory of the two moments.
        eps: Added to the root of the second.
        decay: Of the weights, as a share of the learning rate.
        clip: Largest norm of the gradient; 0 for no limit.
        share: Of the new weights in their average.

    Returns:
        The norm of the gradient before clipping.
    """
    beta_1, beta_2 = betas
    rate, correction = learning_rate / (1 - beta_1**updates), 1 / math.sqrt(1 - beta_2**updates)
    return float(
        _kernel()(
            weights.data_ptr(), gradient.data_ptr(), first.data_ptr(), second.data_ptr(), average.data_ptr(), len(weights),
            clip, beta_1, beta_2, 1 - learning_rate * decay, rate, correction, eps, share, torch.get_num_threads(),
        )
    )  # fmt: skip


@cache
def _kernel() -> Any:
    """The function with its types, so that a call costs two microseconds."""
    found = library()
    assert found is not None
    kernel = found.adamw
    kernel.argtypes = [*[c_void_p] * 5, c_int64, *[c_float] * 8, c_int]
    kernel.restype = c_float
    return kernel
