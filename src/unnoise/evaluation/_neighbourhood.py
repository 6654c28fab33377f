"""What stands around a sample: its nearest training sample, and the nearest that is no duplicate of that one."""

from __future__ import annotations

import hashlib
import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import ShapeError
from ..randomness import address, random_words
from .features.base import Progress
from .nearest import Neighbours, distances_to, nearest

AROUND = 10  # neighbours that are looked at, to tell duplicates from others
_SAME = 0.1  # of the distance to the tenth neighbour: nearer than that, two training samples count as one
_CHANCE = 1e-4  # that two different samples count as one


class Found(NamedTuple):
    """The neighbours of each of N samples, nearest first, each training sample at most once.

    Args:
        distances: Shape (N, K), float64.
        indices: Shape (N, K), int64.
        flipped: Whether the mirror image is the nearer one, shape (N, K), bool.
    """

    distances: Tensor
    indices: Tensor
    flipped: Tensor


class Around(NamedTuple):
    """The nearest training sample and the second nearest different one, shape (N,) each.

    Args:
        distances: To the nearest, float64.
        first: Which it is, int64.
        flipped: Whether its mirror image is meant, bool.
        second_distances: To the second, float64.
        second: Which it is, int64.
        ratios: Of the two distances, in [0, 1], float64.
    """

    distances: Tensor
    first: Tensor
    flipped: Tensor
    second_distances: Tensor
    second: Tensor
    ratios: Tensor


class Search:
    """Looks for samples in the training data.

    Args:
        train: Training samples, no two of which are equal, shape (M, ...).
        num: How many neighbours are looked at, K, at least 2.
        flips: Whether a mirror image counts as the same.
        progress: Told of the search.
    """

    def __init__(self, train: Tensor, num: int, flips: bool, progress: Progress | None) -> None:
        self.train, self.num, self.flips, self.progress = train, num, flips, progress

    def __call__(self, what: str, x: Tensor, own: Tensor | None) -> Found:
        """The neighbours of samples.

        Args:
            what: They are, for `progress`.
            x: Shape (N, ...).
            own: Where they are training samples, which ones, shape (N,).
        """
        if x.shape[1:] != self.train.shape[1:]:
            raise ShapeError(
                f"expected samples of shape {tuple(self.train.shape[1:])}, as the training data has, got {tuple(x.shape[1:])}"
            )
        here = self._nearest(what, x, own)
        straight = torch.zeros_like(here.indices, dtype=torch.bool)
        if not self.flips:
            return Found(here.distances, here.indices, straight)
        there = self._nearest(f"{what}, flipped", x.flip(-1), own)
        distances, indices = (torch.cat(pair, 1) for pair in zip(here, there, strict=True))
        distances, order = distances.sort(dim=1, stable=True)
        indices, flipped = indices.gather(1, order), torch.cat([straight, ~straight], 1).gather(1, order)
        # Of an index that stands there twice, the first is the nearer one; at least K stay.
        again = (indices[:, :, None] == indices[:, None, :]).tril(-1).any(2)
        stay = again.to(torch.int8).sort(dim=1, stable=True).indices[:, : self.num]
        return Found(distances.gather(1, stay), indices.gather(1, stay), flipped.gather(1, stay))

    def _nearest(self, what: str, x: Tensor, own: Tensor | None) -> Neighbours:
        progress = self.progress
        tell = None if progress is None else lambda done, of: progress(f"nearest neighbours: {what}", done, of)
        return nearest(x, self.train, self.num, False if own is None else own, progress=tell)

    def judge(self, found: Found, part: float, leave_out: bool) -> Around:
        """The nearest and the second nearest different one.

        Args:
            found: The neighbours.
            part: Of the distance to the K-th neighbour, within which two samples count as one; see `sameness`.
            leave_out: Whether duplicates of the sample itself are left out.
        """
        reach = part * found.distances[:, -1:]
        # The last is never left out, as `part` is below 1.
        gone = found.distances < reach if leave_out else torch.zeros_like(found.flipped)
        at = gone.sum(1, keepdim=True)
        first, distances = found.indices.gather(1, at), found.distances.gather(1, at)
        different = (self._apart(first[:, 0], found.indices) > reach) & ~gone
        # By the triangle inequality the last is different wherever the nearest is anywhere near.
        different[:, -1] = True
        to = torch.where(different, found.distances, math.inf).argmin(1, keepdim=True)
        second, second_distances = found.indices.gather(1, to), found.distances.gather(1, to)
        ratios = torch.where(distances > 0, distances / second_distances, 0.0)
        every = (distances, first, found.flipped.gather(1, at), second_distances, second, ratios)
        return Around(*(each[:, 0] for each in every))

    def _apart(self, first: Tensor, indices: Tensor) -> Tensor:
        """From each of the training samples `first`, (N,), to its row of others, (N, K)."""
        flat = self.train.reshape(len(self.train), -1)
        straight = distances_to(flat, flat, indices, first)
        if not self.flips:
            return straight
        turned = self.train[first].flip(-1).reshape(len(first), -1)
        return torch.minimum(straight, distances_to(turned, flat, indices))


def some(num: int, most: int, seed: int) -> Tensor:
    """Which samples are looked at, in rising order: all, or as many as wanted, drawn without replacement."""
    if num <= most:
        return torch.arange(num)
    words = random_words(address(seed, "leave one out"), range(1), num)[0]
    return torch.from_numpy(words.argsort(kind="stable")[:most].copy()).sort().values


def distinct(x: Tensor, flips: bool) -> Tensor:
    """The first of all rows that are equal to the bit, or mirror images where those count as the same, in rising order."""
    seen: dict[bytes, int] = {}
    for i in range(len(x)):
        row = x[i].cpu() + 0  # makes -0 a 0
        forms = [row, row.flip(-1)] if flips else [row]
        marks = [hashlib.blake2b(form.contiguous().numpy().tobytes(), digest_size=16).digest() for form in forms]
        seen.setdefault(min(marks), i)
    return torch.tensor(list(seen.values()), dtype=torch.int64)


def sameness(distances: Tensor) -> float:
    r"""The part of the distance to the K-th neighbour within which two training samples count as one.

    Where samples lie evenly in m dimensions, :math:`(d_1 / d_K)^m` is the least of K - 1 uniform numbers, so that a chance p
    of a false duplicate needs the part :math:`(p / (K - 1))^{1/m}`. The ball that reaches to the K-th neighbour holds twice
    the volume of the one that reaches to the K/2-th, on half of all samples, which gives m.

    Args:
        distances: From samples to their K neighbours, shape (N, K).

    References:
        Maximum Likelihood Estimation of Intrinsic Dimension (Levina and Bickel, 2004), from whose model the two follow
    """
    k = distances.shape[1]
    inner, outer = distances[:, k // 2 - 1], distances[:, -1]
    usable = inner > 0
    growth = float((outer[usable] / inner[usable]).log().median()) if bool(usable.any()) else 0.0
    return min(_SAME, float((_CHANCE / (k - 1)) ** (growth / math.log(2))))
