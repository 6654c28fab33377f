"""Made and real samples as metrics see them: in an extractor's features, or as rows of numbers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...data.base import Dataset, Progress
from ...errors import DataError
from ...evaluation.features.base import Extractor
from ...evaluation.features.store import reference_features
from ...evaluation.metrics.base import Cloud
from ...randomness import permutations
from .real import RealData

MIN_BASELINE = 200
"""Held-out samples that are enough to stand for real data."""


class Clouds:
    """What was made and what is real, worked out when first asked for.

    Args:
        made: The samples, in the units of the data.
        real: What they are judged by.
        seen: The features of what was made, shape (n, D).
        extractor: That made them.
        labels: What the samples were asked for, by the real data's numbers, or None.
        seed: Of the choice of real samples that stand in the place of made ones.
        progress: Told while features of real data are worked out.
    """

    def __init__(
        self,
        made: Tensor,
        real: RealData,
        seen: Tensor,
        extractor: Extractor,
        labels: Tensor | None,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> None:
        self.made, self.real, self.seen, self.extractor, self.labels = made, real, seen, extractor, labels
        self.n, self.seed, self.progress = len(made), seed, progress
        self._known: dict[str, Cloud] = {}

    def pair(self, space: str) -> tuple[Cloud, Cloud]:
        """What was made, and the real data."""
        return self._cloud(f"made {space}", self._made), self._cloud(f"real {space}", self._real)

    def baseline(self, space: str) -> tuple[Cloud, Cloud]:
        """As many real samples in the place of those that were made, and the real data without them."""
        real, held_out = self.real, self.real.held_out
        if held_out is not None and real.reference is real.train and len(held_out) >= min(self.n, MIN_BASELINE):
            chosen = some(held_out, self.n, self.seed)
            other = self._cloud(f"held out {space}", self._held_out)
            return other.take(chosen), self._cloud(f"real {space}", self._real)
        everything = self._cloud(f"real {space}", self._real)
        count = min(self.n, len(real.reference) // 2)
        if count < 2:
            raise DataError("there is too little real data to set some of it aside")
        chosen = some(real.reference, count, self.seed)
        rest = torch.ones(len(real.reference), dtype=torch.bool).index_fill_(0, chosen, False).nonzero()[:, 0]
        return everything.take(chosen), everything.take(rest)

    def _cloud(self, name: str, make: Callable[[str], Cloud]) -> Cloud:
        if name not in self._known:
            self._known[name] = make(name.rsplit(" ", 1)[1])
        return self._known[name]

    def _made(self, space: str) -> Cloud:
        if space == "data":
            return Cloud(rows(self.made), self.labels, shape=tuple(self.made.shape[1:]))
        return Cloud(self.seen, self.labels, self.extractor.classify(self.seen))

    def _real(self, space: str) -> Cloud:
        return self._of_dataset(self.real.reference, space)

    def _held_out(self, space: str) -> Cloud:
        held_out = self.real.held_out
        assert held_out is not None
        return self._of_dataset(held_out, space)

    def _of_dataset(self, data: Dataset, space: str) -> Cloud:
        if space == "data":
            return Cloud(rows(data.x), data.labels, shape=data.spec.shape)
        seen = reference_features(data, self.extractor, self.progress)
        return Cloud(seen, data.labels, self.extractor.classify(seen))


def rows(x: Tensor) -> Tensor:
    """Samples as rows of numbers, shape (N, D), float32; pixels in [-1, 1]."""
    flat = x.reshape(len(x), -1)
    return flat.float() / 127.5 - 1 if x.dtype == torch.uint8 else flat.float()


def some(data: Dataset, most: int, seed: int) -> Tensor:
    """The numbers of at most so many samples, chosen for a seed and in rising order, shape (n,)."""
    if len(data) <= most:
        return torch.arange(len(data))
    return torch.from_numpy(permutations(seed, len(data), 0, 1)[0][:most].copy()).sort().values
