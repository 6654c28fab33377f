"""Whether pictures find their captions, and captions their pictures; and labels read off by their names alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import BadOption, ShapeError
from .adherence import Share, share


@dataclass(frozen=True)
class Found:
    """How well one of two kinds is found by the other.

    Args:
        first: The share of trials in which the right one comes first.
        among_five: In which it is among the first five.
        rank: The mean place of the right one, from 1 on.
        among: How many there were to choose from.
    """

    first: Share
    among_five: Share
    rank: float
    among: int

    @property
    def chance(self) -> float:
        """The share that guessing would find first."""
        return 1 / self.among


def ranks(queries: Tensor, others: Tensor) -> Tensor:
    """The place of each query's own partner among all others by their inner product, from 1 on; ties count half.

    Args:
        queries: Shape (n, dim).
        others: The partner of query i is row i, same shape.

    Returns:
        Shape (n,), float64.

    Raises:
        ShapeError: They do not come in pairs.
    """
    if queries.ndim != 2 or queries.shape != others.shape or not len(queries):
        raise ShapeError(f"expected pairs of shape (n, dim), got {tuple(queries.shape)} and {tuple(others.shape)}")
    scores = queries.double() @ others.double().T
    own = scores.diagonal()[:, None]
    return 1 + (scores > own).sum(1).double() + ((scores == own).sum(1) - 1).double() / 2


def retrieval(queries: Tensor, others: Tensor, among: int = 100) -> Found:
    """How often a query's partner is found among so many, which are dealt out in the order that they come in.

    Args:
        queries: Shape (n, dim).
        others: The partner of query i is row i, same shape.
        among: From 2 on; all where there are fewer.

    Raises:
        BadOption: There is nothing to choose from.
        ShapeError: They do not come in pairs.
    """
    among = min(among, len(queries))
    if among < 2:
        raise BadOption(f"among: expected at least 2 pairs to choose from, got {among}")
    found = [ranks(queries[i : i + among], others[i : i + among]) for i in range(0, len(queries) - among + 1, among)]
    place = torch.cat(found)
    first, five = (share(int((place < most).sum()), len(place)) for most in (1.5, 5.5))
    return Found(first, five, float(place.mean()), among)


def zero_shot(pictures: Tensor, names: Tensor, labels: Tensor) -> Share:
    """The share of pictures whose label is the one whose name lies nearest.

    Args:
        pictures: Of length 1, shape (n, dim).
        names: What the names of the labels are in the same space, of length 1, shape (labels, dim).
        labels: Shape (n,), int64.
    """
    said = (pictures @ names.T).argmax(1)
    return share(int((said == labels).sum()), len(labels))
