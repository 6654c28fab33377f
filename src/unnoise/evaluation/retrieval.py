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
    return ranks_of(queries.double() @ others.double().T)


def ranks_of(scores: Tensor) -> Tensor:
    """The place of each query's own partner by scores, from 1 on; ties count half.

    Args:
        scores: Shape (n, n), float64, of query i with other j; the higher the nearer, and partner of query i is other i.
    """
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
    return found_at(torch.cat(found), among)


def found_at(place: Tensor, among: int) -> Found:
    """How well partners are found that stand at these places.

    Args:
        place: Shape (n,), from 1 on.
        among: How many there were to choose from.
    """
    first, five = (share(int((place < most).sum()), len(place)) for most in (1.5, 5.5))
    return Found(first, five, float(place.mean()), among)


def match_score(pictures: Tensor, texts: Tensor) -> tuple[float, float, float]:
    """CLIP score: 100 times the mean cosine of pictures with their texts, of which none counts less than 0, and its 95 % interval.

    References:
        CLIPScore: A Reference-free Evaluation Metric for Image Captioning (Hessel et al., 2021), Section 3.1, without its factor
        2.5, https://arxiv.org/abs/2104.08718

    Args:
        pictures: Of length 1, shape (n, dim).
        texts: The text of picture i is row i, same shape.

    Returns:
        The score, and the ends of its interval.
    """
    each = 100 * (pictures.double() * texts.double()).sum(1).clamp(min=0)
    half = 1.96 * float(each.std()) / max(1, len(each)) ** 0.5 if len(each) > 1 else 0.0
    return float(each.mean()), float(each.mean()) - half, float(each.mean()) + half


def zero_shot(pictures: Tensor, names: Tensor, labels: Tensor) -> Share:
    """The share of pictures whose label is the one whose name lies nearest.

    Args:
        pictures: Of length 1, shape (n, dim).
        names: What the names of the labels are in the same space, of length 1, shape (labels, dim).
        labels: Shape (n,), int64.
    """
    said = (pictures @ names.T).argmax(1)
    return share(int((said == labels).sum()), len(labels))
