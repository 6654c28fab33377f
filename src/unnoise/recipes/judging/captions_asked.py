"""Which captions of the data the samples that are judged are asked for: a function of the seed and of their number."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch

from ...data.base import Dataset
from ...errors import DataError
from ...randomness import permutations
from ...training.captions import lines


@dataclass(frozen=True)
class CaptionsAsked:
    """The captions of a data set, dealt out to samples: each once before any comes twice.

    Args:
        data: With captions.
        seed: In which order.

    Raises:
        DataError: The data has no captions.
    """

    data: Dataset
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.data.texts:
            raise DataError("prompt: the real data has no captions: leave --prompt out, or give one prompt for all")

    def rows(self, first: int, count: int) -> torch.Tensor:
        """The samples of the data whose captions samples first ... first + count - 1 are asked for, shape (count,), int64."""
        n = len(self.data)
        rounds = range(first // n, -(-(first + count) // n))
        found = torch.from_numpy(permutations(self.seed, n, rounds.start, len(rounds)).reshape(-1))
        low = first - rounds.start * n
        return found[low : low + count]

    def texts(self, first: int, count: int) -> list[str]:
        """These captions; of several of a sample the first."""
        assert self.data.texts is not None
        return [lines(self.data.texts[int(i)])[0] for i in self.rows(first, count)]

    def labels(self, first: int, count: int) -> list[str] | None:
        """The names of the labels of the same samples; None without labels."""
        names, labels = self.data.spec.class_names, self.data.labels
        return None if labels is None else [names[int(labels[i])] for i in self.rows(first, count)]

    def fingerprint(self) -> str:
        """Of the captions, as hexadecimal digits."""
        return hashlib.sha256("\0".join(self.data.texts or ()).encode()).hexdigest()


def captioned(*parts: Dataset | None) -> Dataset | None:
    """The first part of some data that has captions, and samples; None where none has."""
    return next((part for part in parts if part is not None and len(part) and part.texts), None)
