"""How fast a machine multiplies at best, measured: what the speed of training is held against."""

from __future__ import annotations

import time
from functools import cache

import torch

_SIZES = {"cpu": (256, 1024), "cuda": (8192,)}
_LONG = 0.2
"""Seconds from which a product is not tried: a processor without units for bfloat16 takes as long as that for small ones."""


@cache
def measured_peak(dtype: torch.dtype, device: torch.device, threads: int) -> float:
    """Floating-point operations a second of the product of two large matrices, the fastest of a few; takes a moment.

    Args:
        dtype: Of the matrices.
        device: Where they stand.
        threads: That torch uses on a CPU now; another number is another peak.
    """
    peak = 0.0
    for size in _SIZES.get(device.type, (2048,)):
        if peak and 2 * size**3 / peak > _LONG:
            break
        peak = max(peak, _rate(size, dtype, device))
    return peak


def _rate(size: int, dtype: torch.dtype, device: torch.device) -> float:
    a, b = (torch.ones(size, size, dtype=dtype, device=device) for _ in range(2))
    best = float("inf")
    for _ in range(6):
        _wait(device)
        began = time.perf_counter()
        torch.mm(a, b)
        _wait(device)
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def peak_memory(device: torch.device) -> int | None:
    """The most bytes that this process had at once: of the GPU's memory, or of the machine's; None where nobody counts."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        import resource
    except ImportError:  # Windows
        return None
    import sys

    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found if sys.platform == "darwin" else 1024 * found
