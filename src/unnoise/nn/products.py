"""The three products of a linear layer, by the faster of the two libraries that torch has for them.

torch leaves products of float32 to MKL, which keeps to vectors of 256 bits on processors that are not Intel's. oneDNN takes the
widest that there are, twice as fast on a Zen 5, but needs ten microseconds to begin. Which one works a product out depends on
the machine and on sizes alone, so that a resumed run sums in the same order.
"""

from __future__ import annotations

import functools
from pathlib import Path

import torch
from torch import Tensor, nn

from .kernels.library import counted

# Multiplications from which oneDNN is ahead, measured on a Zen 5; the products with transposed factors cost it a copy.
_WORTH_IT, _WORTH_A_COPY = 1_500_000, 4_000_000


def affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x W^T + b, shape (B, out), for x of shape (B, in) and W of shape (out, in)."""
    if _by_onednn(x, weight, _WORTH_IT):
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return nn.functional.linear(x, weight, bias)


def times(slope: Tensor, weight: Tensor) -> Tensor:
    """g W, shape (B, in), for g of shape (B, out) and W of shape (out, in)."""
    if _by_onednn(slope, weight, _WORTH_IT):
        return torch.ops.mkldnn._linear_pointwise(slope, weight.t(), None, "none", [], "")
    return slope.mm(weight)


def add_outer(total: Tensor, slope: Tensor, x: Tensor) -> None:
    """Adds g^T x to a total of shape (out, in), for g of shape (B, out) and x of shape (B, in)."""
    if _by_onednn(x, total, _WORTH_A_COPY):
        total.add_(torch.ops.mkldnn._linear_pointwise(slope.t(), x.t(), None, "none", [], ""))
    else:
        total.addmm_(slope.t(), x)


def outer(slope: Tensor, x: Tensor) -> Tensor:
    """g^T x, shape (out, in), for g of shape (B, out) and x of shape (B, in)."""
    if len(x) * slope.shape[1] * x.shape[1] >= _WORTH_A_COPY and _by_onednn(x, slope, 0):
        return torch.ops.mkldnn._linear_pointwise(slope.t(), x.t(), None, "none", [], "")
    return slope.t().mm(x)


def better_by_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN is ahead for x W^T, with x of shape (..., in) and W of shape (out, in)."""
    large = x.numel() * len(weight) >= _WORTH_IT
    return large and weight.dtype == torch.float32 and _by_onednn(x, weight, 0)


def _by_onednn(x: Tensor, weight: Tensor, from_size: int) -> bool:
    large = x.shape[0] * weight.numel() >= from_size
    return large and x.dtype == torch.float32 and x.is_cpu and _mkl_holds_back() and not counted()


@functools.cache
def _mkl_holds_back() -> bool:
    """Whether this processor has vectors of 512 bits that MKL does not use, and oneDNN can be had."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not torch.backends.mkl.is_available():
        return False
    told = Path("/proc/cpuinfo")
    other_maker = told.is_file() and "GenuineIntel" not in told.read_text(errors="replace")
    return other_maker and torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
