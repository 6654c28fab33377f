"""Data with its labels numbered in another way, for a model that knows other labels too."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from .base import MOST_IN_PART, AnyDataset, Dataset
from .order import Order


def relabelled(data: AnyDataset, names: Sequence[str]) -> AnyDataset:
    """The same samples, whose labels are numbered by their place among `names`.

    Args:
        data: With labels, or without any; then it stays as it is.
        names: Every label of the data, and others.
    """
    if not data.spec.num_classes or tuple(names) == data.spec.class_names:
        return data
    numbers = torch.tensor([list(names).index(name) for name in data.spec.class_names], dtype=torch.int64)
    return _renumbered(data, tuple(names), numbers) if isinstance(data, Dataset) else Relabelled(data, names, numbers)


def _renumbered(data: Dataset, names: tuple[str, ...], numbers: Tensor) -> Dataset:
    labels = None if data.labels is None else numbers[data.labels]
    return replace(data, spec=replace(data.spec, class_names=names), labels=labels)


class Relabelled(AnyDataset):
    """Data that is read as it is needed, with other numbers for its labels.

    Args:
        inner: The data.
        names: Of the labels as they are numbered now.
        numbers: The new number of each old one.
    """

    def __init__(self, inner: AnyDataset, names: Sequence[str], numbers: Tensor) -> None:
        self.inner, self.names, self.numbers = inner, tuple(names), numbers
        self.spec = replace(inner.spec, class_names=self.names)
        self.skipped, self.augmentation = inner.skipped, inner.augmentation

    def __len__(self) -> int:
        return len(self.inner)

    def take(self, indices: Tensor) -> Dataset:
        """See `AnyDataset.take`."""
        return _renumbered(self.inner.take(indices), self.names, self.numbers)

    def part(self, most: int = MOST_IN_PART) -> Dataset:
        """See `AnyDataset.part`."""
        return _renumbered(self.inner.part(most), self.names, self.numbers)

    def split(self, fraction: float, seed: int = 0) -> tuple[AnyDataset, AnyDataset]:
        """See `AnyDataset.split`."""
        first, second = self.inner.split(fraction, seed)
        return Relabelled(first, self.names, self.numbers), Relabelled(second, self.names, self.numbers)

    def fingerprint(self) -> str:
        """See `AnyDataset.fingerprint`."""
        return hashlib.sha256(f"{self.inner.fingerprint()} {self.names}".encode()).hexdigest()

    def order(self, seed: int, batch_size: int = 1) -> Order:
        """See `AnyDataset.order`."""
        return self.inner.order(seed, batch_size)
