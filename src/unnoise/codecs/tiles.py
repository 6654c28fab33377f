"""A large sample worked on in overlapping tiles, whose results are blended: memory follows the tile and not the sample."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

OVERLAP = 4
"""Neighbouring tiles share at least one part in so many of their side."""


def tiled(work: Callable[[Tensor], Tensor], x: Tensor, tile: int, enters: int = 1, leaves: int = 1) -> Tensor:
    """What `work` gives for a large sample, from what it gives for tiles of it.

    Results are blended linearly where tiles overlap. A sample that fits into one tile is worked on whole; larger ones come
    out the same only as far as `work` looks no further than a tile.

    Args:
        work: Shape (B, C, *tile * enters) to (B, D, *tile * leaves).
        x: Shape (B, C, *places * enters).
        tile: Side of a tile, in places; 0 works on the whole.
        enters: Values of x a place, along each dimension.
        leaves: Values of the result a place, along each dimension.

    Returns:
        Shape (B, D, *places * leaves).
    """
    places = [size // enters for size in x.shape[2:]]
    if not tile or max(places) <= tile:
        return work(x)
    axes = [_spans(size, tile) for size in places]
    total = weights = None
    for spans in itertools.product(*axes):
        there: Any = (..., *(slice(first * enters, last * enters) for first, last, *_ in spans))
        part = work(x[there])
        weight = torch.ones((), dtype=part.dtype, device=part.device)
        for first, last, before, after in spans:
            weight = weight[..., None] * _ramp(last - first, before, after, leaves).to(part)
        if total is None or weights is None:
            whole = [size * leaves for size in places]
            total, weights = part.new_zeros(*part.shape[:2], *whole), part.new_zeros(whole)
        at: Any = (..., *(slice(first * leaves, last * leaves) for first, last, *_ in spans))
        total[at] += weight * part
        weights[at] += weight
    assert total is not None
    assert weights is not None
    return total / weights


def _spans(size: int, tile: int) -> list[tuple[int, int, int, int]]:
    """Where tiles begin and end along one dimension, and how many places each shares with the ones before and after it."""
    if size <= tile:
        return [(0, size, 0, 0)]
    overlap = max(1, tile // OVERLAP) if tile > 1 else 0
    count = 1 + -(-(size - tile) // (tile - overlap))
    starts = [round(i * (size - tile) / (count - 1)) for i in range(count)]
    shared = [0, *(a + tile - b for a, b in itertools.pairwise(starts)), 0]
    return [(start, start + tile, shared[i], shared[i + 1]) for i, start in enumerate(starts)]


def _ramp(length: int, before: int, after: int, leaves: int) -> Tensor:
    """How much each value of a tile counts along one dimension: it rises where a tile before overlaps, and falls likewise."""
    place = torch.arange(length * leaves, dtype=torch.float64) + 0.5
    rising = (place / (before * leaves)).clamp(max=1) if before else torch.ones_like(place)
    falling = ((length * leaves - place) / (after * leaves)).clamp(max=1) if after else torch.ones_like(place)
    return rising * falling
