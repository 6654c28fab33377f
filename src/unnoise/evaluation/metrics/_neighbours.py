"""Balls around samples: which samples of one side lie within reach of the other, and how sure that is.

Around every sample stands a ball that reaches to its k-th nearest neighbour on its own side. Four metrics count which
samples lie in whose balls. All distances are computed once for the four, and kept until other clouds come.

The chance of who carries a ball is found by random groups: each side is split, balls are drawn anew around the samples of a
group by its members alone, and what the groups differ in is what small independent samples differ in. To leave samples out,
as a jackknife does, would find several times too much: a hole that one sample leaves is one that another would have filled.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import torch
from torch import Tensor

from . import _bars, _rows
from .base import Cloud

USUAL = (3, 5)  # k of precision and recall, and of density and coverage
_MOST_GROUPS = 20
_SPARE = 3  # samples that a group has beyond k, at least
_ROUNDING = 1e-12  # of squared distances by a matrix product, as a share of the largest square of a sample
_SIDE = 1024  # samples of one block of distances


def least(k: int) -> int:
    """How many samples each side must have: two groups."""
    return 2 * (k + _SPARE)


@dataclass(frozen=True)
class Reach:
    """How the balls of one side, m of them, hold the n samples of the other.

    Args:
        counts: In how many balls every sample lies, shape (n,).
        hit: Whether any sample lies in the ball, for every ball, shape (m,).
        covered_by_group: The share of samples that lie in a ball of the group, for each of G groups of balls, shape (G,).
        counts_by_group: The mean number of balls of the group that a sample lies in, shape (G,).
        hit_by_groups: The share of balls of the second group that samples of the first hit, shape (G, G).
    """

    counts: Tensor
    hit: Tensor
    covered_by_group: Tensor
    counts_by_group: Tensor
    hit_by_groups: Tensor

    def chance_of_coverage(self) -> _bars.Variance:
        """Of the share of samples that lie in a ball: who the samples are, and who carries the balls."""
        n = len(self.counts)
        share = float((self.counts > 0).double().mean())
        return _bars.total([_bars.Variance(share * (1 - share) / n), _bars.of_groups(self.covered_by_group)])

    def chance_of_counts(self) -> _bars.Variance:
        """Of the mean number of balls that a sample lies in."""
        return _bars.total([_bars.of_influences(self.counts), _bars.of_groups(self.counts_by_group)])

    def chance_of_hits(self) -> _bars.Variance:
        """Of the share of balls that are hit; every pair of a group of each side is a small sample of both."""
        num = len(self.hit_by_groups)
        return _bars.Variance(float(self.hit_by_groups.var()) / num, 2 * (num - 1))


class _Tally:
    """What one block of distances after another adds to a `Reach`.

    Args:
        radii: Squares, of all balls, shape (m,).
        group_radii: The same by the members of the ball's own group alone.
        balls: The group of each ball, one-hot, shape (m, G).
        samples: The group of each sample, one-hot, shape (n, G).
    """

    def __init__(self, radii: Tensor, group_radii: Tensor, balls: Tensor, samples: Tensor) -> None:
        self.radii, self.group_radii, self.balls, self.samples = radii, group_radii, balls, samples
        self.counts = torch.zeros(len(samples))
        self.hits = torch.zeros(len(balls))
        self.counts_by_group = torch.zeros_like(samples)
        self.hits_by_group = torch.zeros_like(balls)

    def add(self, squares: Tensor, these: slice, those: slice) -> None:
        """Squared distances of some samples to some balls."""
        inside = (squares <= self.radii[those]).float()
        self.counts[these] += inside.sum(1)
        self.hits[those] += inside.sum(0)
        inside = (squares <= self.group_radii[those]).float()
        self.counts_by_group[these] += inside @ self.balls[those]
        self.hits_by_group[those] += inside.T @ self.samples[these]

    def reach(self) -> Reach:
        """All of it."""
        balls = self.balls.double()
        return Reach(
            self.counts.double(),
            self.hits > 0,
            (self.counts_by_group > 0).double().mean(0),
            self.counts_by_group.double().mean(0),
            (self.hits_by_group > 0).double().T @ balls / balls.sum(0),
        )


@dataclass(frozen=True)
class Manifolds:
    """Made samples in the balls of real ones, and real samples in the balls of made ones, by k."""

    made_in_real: dict[int, Reach]
    real_in_made: dict[int, Reach]


_last: list[tuple[weakref.ref[Tensor], weakref.ref[Tensor], tuple[int, ...], Manifolds]] = []


def manifolds(made: Cloud, real: Cloud, k: int, seed: int, most: int) -> Manifolds:
    """How the two sides cover each other, for the k that was asked for and those that the four metrics use by default.

    Args:
        made: Of the model.
        real: Of the data.
        k: Which neighbour a ball reaches to.
        seed: Of the groups, and of the choice among more samples than `most`.
        most: Samples of each side that are looked at.
    """
    x, y = made.features, real.features
    key = (0 if k in USUAL else k, seed, most, _version(x), _version(y))
    for known_x, known_y, known_key, found in _last:
        if known_x() is x and known_y() is y and known_key == key and k in found.made_in_real:
            return found
    ks = [each for each in sorted({*USUAL, k}) if least(each) <= min(len(x), len(y), most)]
    found = _work_out(*_rows.both("manifold", made, real, seed, most), ks, seed)
    _last[:] = [(weakref.ref(x), weakref.ref(y), key, found)]
    return found


def _version(features: Tensor) -> int:
    """Changes when the features are changed in place."""
    return -1 if features.is_inference() else features._version


def _work_out(x: Tensor, y: Tensor, ks: list[int], seed: int) -> Manifolds:
    centre = y.mean(0)  # distances by a matrix product lose digits far from 0
    x, y = x - centre, y - centre
    num = min(_MOST_GROUPS, min(len(x), len(y)) // (max(ks) + _SPARE))
    group_x = _rows.groups(seed, "manifold groups of made", len(x), num)
    group_y = _rows.groups(seed, "manifold groups of real", len(y), num)
    one_x, one_y = torch.eye(num)[group_x], torch.eye(num)[group_y]
    # A copy of a sample lies on the very edge of some balls, and counts.
    rounding = _ROUNDING * max(float(side.square().sum(1).max()) for side in (x, y))
    radii_x, radii_y = _radii(x, max(ks)) + rounding, _radii(y, max(ks)) + rounding
    own_x, own_y = _radii_of_groups(x, group_x, max(ks)) + rounding, _radii_of_groups(y, group_y, max(ks)) + rounding
    in_real = {k: _Tally(radii_y[:, k - 1], own_y[:, k - 1], one_y, one_x) for k in ks}
    in_made = {k: _Tally(radii_x[:, k - 1], own_x[:, k - 1], one_x, one_y) for k in ks}
    for i in range(0, len(x), _SIDE):
        these = slice(i, i + _SIDE)
        for j in range(0, len(y), _SIDE):
            those = slice(j, j + _SIDE)
            squares = _squares(x[these], y[those])
            for k in ks:
                in_real[k].add(squares, these, those)
                in_made[k].add(squares.T, those, these)
    return Manifolds({k: t.reach() for k, t in in_real.items()}, {k: t.reach() for k, t in in_made.items()})


def _squares(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances, shape (n, m)."""
    return (a.square().sum(1)[:, None] + b.square().sum(1)).addmm_(a, b.T, alpha=-2).clamp_(min=0)


def _radii(rows: Tensor, num: int) -> Tensor:
    """Squared distances to the `num` nearest other rows, the nearest first, shape (n, num)."""
    found = []
    for i in range(0, len(rows), _SIDE):
        block = _squares(rows[i : i + _SIDE], rows)
        here = torch.arange(len(block))
        block[here, here + i] = torch.inf
        found.append(block.topk(num, largest=False, sorted=True).values)
    return torch.cat(found)


def _radii_of_groups(rows: Tensor, group: Tensor, num: int) -> Tensor:
    """The same among the rows of the same group."""
    radii = torch.empty(len(rows), num, dtype=rows.dtype)
    for each in range(int(group.max()) + 1):
        radii[group == each] = _radii(rows[group == each], num)
    return radii
