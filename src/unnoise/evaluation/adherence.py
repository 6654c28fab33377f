"""Whether samples show what was asked for, and how different they are among themselves."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import BadOption, DataError, ShapeError
from .distances import flat, mean_distance

_Z = 1.959963984540054  # of a two-sided interval of 95 %


@dataclass(frozen=True)
class Share:
    """A share of some trials, with its 95 % interval.

    Args:
        value: In [0, 1].
        low: Lower end of the interval.
        high: Upper end.
        trials: How many there were.
    """

    value: float
    low: float
    high: float
    trials: int


def share(successes: int, trials: int) -> Share:
    """A share with Wilson's 95 % interval, which stays within [0, 1] and has a width even where all trials succeed.

    Args:
        successes: From 0 to `trials`.
        trials: At least 1.

    Raises:
        BadOption: The numbers are out of range.

    References:
        Probable Inference, the Law of Succession, and Statistical Inference (Wilson, 1927), https://doi.org/10.2307/2276774
    """
    if not 0 <= successes <= trials or trials < 1:
        raise BadOption(f"successes: expected 0 to {trials} of at least one trial, got {successes}")
    p, z2 = successes / trials, _Z**2
    middle = (p + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z / (1 + z2 / trials) * math.sqrt(p * (1 - p) / trials + z2 / (4 * trials**2))
    # At the very ends the interval ends exactly there, which rounding would miss.
    low, high = 0.0 if successes == 0 else middle - half, 1.0 if successes == trials else middle + half
    return Share(p, low, high, trials)


class NearestNeighbours:
    """A classifier that asks the nearest samples of the data, and knows nothing of the model that it judges.

    The label that most of the k nearest have wins; among equals, the label of the nearest one that is a candidate.

    Args:
        x: The data, shape (N, ...).
        labels: Shape (N,), whole numbers from 0 on.
        k: How many neighbours are asked, from 1 to N.

    Raises:
        ShapeError: There are no samples, or not as many labels.
        DataError: Some samples are not finite.
        BadOption: k is out of range.

    References:
        Nearest Neighbor Pattern Classification (Cover and Hart, 1967), https://doi.org/10.1109/TIT.1967.1053964
    """

    def __init__(self, x: Tensor, labels: Tensor, k: int = 3) -> None:
        self.x, self.labels = flat("the data", x), _labels(labels, len(x))
        if not 1 <= k <= len(x):
            raise BadOption(f"k: must be from 1 to {len(x)}, the number of samples, got {k}")
        self.k = k
        self._spreads: dict[int, float | None] = {}

    def predict(self, x: Tensor) -> Tensor:
        """The label of every sample.

        Args:
            x: Shape (B, ...).

        Returns:
            Shape (B,), int64.

        Raises:
            ShapeError: The samples have another shape than the data.
            DataError: Some are not finite.
        """
        rows = self._rows(x)
        answers = []
        for part in rows.split(max(1, 2**22 // len(self.x))):
            near = torch.cdist(part, self.x).topk(self.k, largest=False, sorted=True).indices
            votes = self.labels[near]  # (b, k), the nearest first
            counts = (votes[:, :, None] == votes[:, None, :]).sum(2)
            # argmax takes the first of equals, which is the nearest.
            answers.append(votes.gather(1, counts.argmax(1, keepdim=True))[:, 0])
        return torch.cat(answers)

    def agreement(self, x: Tensor, asked: Tensor) -> Share:
        """The share of samples that are recognised as what was asked for, with its 95 % interval.

        Args:
            x: Shape (B, ...).
            asked: Shape (B,), labels.

        Raises:
            ShapeError: The samples have another shape than the data, or there are not as many labels.
            DataError: Some are not finite.
        """
        asked = _labels(asked, len(x))
        return share(int((self.predict(x) == asked).sum()), len(asked))

    def diversity(self, x: Tensor, asked: Tensor) -> float:
        """How far samples of one label lie apart, relative to the data: 1 is as diverse as the data, 0 all the same.

        It is the mean distance between two different samples of a label, over the same of the data; the mean over the
        labels that have two samples or more on both sides.

        Args:
            x: Shape (B, ...).
            asked: Shape (B,), labels.

        Raises:
            ShapeError: The samples have another shape than the data, or there are not as many labels.
            DataError: Some are not finite, or there is no label of two samples whose data differ.
        """
        rows, asked = self._rows(x), _labels(asked, len(x))
        ratios = []
        for label in asked.unique():
            made, real = _spread(rows[asked == label]), self._real_spread(int(label))
            if made is not None and real:
                ratios.append(made / real)
        if not ratios:
            raise DataError("no label has two samples or more, here and in the data: diversity needs pairs")
        return sum(ratios) / len(ratios)

    def _real_spread(self, label: int) -> float | None:
        # Remembered: it takes far longer than that of a few samples, and stays the same.
        if label not in self._spreads:
            self._spreads[label] = _spread(self.x[self.labels == label])
        return self._spreads[label]

    def _rows(self, x: Tensor) -> Tensor:
        rows = flat("x", x)
        if rows.shape[1] != self.x.shape[1]:
            raise ShapeError(f"expected samples of {self.x.shape[1]} values, as the data has, got x {tuple(x.shape)}")
        return rows


def _labels(labels: Tensor, num: int) -> Tensor:
    if labels.shape != (num,):
        raise ShapeError(f"expected labels of shape ({num},), one for each sample, got {tuple(labels.shape)}")
    return labels.detach().cpu().long()


def _spread(rows: Tensor) -> float | None:
    """The mean distance of two different samples, or None where there are no two."""
    n = len(rows)
    return None if n < 2 else mean_distance(rows, rows) * n / (n - 1)
