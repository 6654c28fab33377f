"""What a data set is to the rest of the house: a specification, samples by index, and a fingerprint."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from ..errors import DataError
from ..options import Checked
from ..registry import Registry
from ._progress import Progress as Progress
from .augmentation import Augmentation
from .order import Order, ShuffledOrder
from .regions import Regions

Kind = Literal["points", "image", "array"]

MOST_IN_PART = 50_000
"""Samples of data that is not in memory, where something has to hold them all at once."""
MOST_CHECKED = 256
"""Samples of such data that are looked at before it is trained on."""


@dataclass(frozen=True)
class Spec:
    """What one sample is: it sizes the network and the codec, and says how to draw it.

    Args:
        kind: Points are float vectors, images uint8 in [0, 255], arrays floats of any shape and unit.
        shape: Of one sample, channels first: (2,) or (3, 32, 32).
        class_names: The labels' names in the order of their numbers; empty without labels.
    """

    kind: Kind
    shape: tuple[int, ...]
    class_names: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        """How many labels there are; 0 without labels."""
        return len(self.class_names)

    @property
    def channels_last(self) -> str:
        """What to do about arrays whose 1, 3 or 4 channels seem to come after height and width; empty where they do not."""
        if self.kind != "array" or len(self.shape) != 3 or self.shape[2] not in (1, 3, 4) or min(self.shape[:2]) <= 4:
            return ""
        return (
            f"samples of shape {tuple(self.shape)} seem to have their channels last, and are read with channels first: save "
            "numpy.moveaxis(x, -1, 1)"
        )


class AnyDataset(ABC):
    """Samples by number, wherever they lie: in memory (`Dataset`), or in shards that are read as they are needed.

    Training takes either. What has to look at all samples at once, such as a measure of quality, takes a `Dataset`, which
    `part` gives of any data.
    """

    spec: Spec
    augmentation: Augmentation  # what training does to a sample each time that it sees it

    @property
    @abstractmethod
    def skipped(self) -> tuple[str, ...]:
        """What could not be read, one line each; of data that is read as it is needed, as far as is known by now."""

    @abstractmethod
    def __len__(self) -> int:
        """How many samples there are, N."""

    @abstractmethod
    def take(self, indices: Tensor) -> Dataset:
        """The samples at `indices`, of shape (n,), in that order.

        Raises:
            DataError: They cannot be read any more.
        """

    @abstractmethod
    def spread(self, most: int = MOST_IN_PART) -> Tensor:
        """The numbers of the samples that `part` gives, of shape (n,), in rising order."""

    def part(self, most: int = MOST_IN_PART) -> Dataset:
        """All samples if they are in memory already; else up to `most` of them, from places spread over the whole."""
        return self.take(self.spread(most))

    def called(self, index: int) -> str:
        """How a message calls a sample, so that a person finds it."""
        return f"number {index}"

    @abstractmethod
    def split(self, fraction: float, seed: int = 0) -> tuple[AnyDataset, AnyDataset]:
        """The samples in two parts that share none, the second with `fraction` of them, the same for one seed.

        Args:
            fraction: In [0, 1).
            seed: Which split.

        Returns:
            The training part and the held-out part; the latter is empty for fraction 0.
        """

    def layout(self) -> str:
        """Where the samples lie, in a few words for people."""
        return "in memory"

    @abstractmethod
    def fingerprint(self) -> str:
        """64 hexadecimal digits that are others as soon as a sample, a label or the specification is."""

    @abstractmethod
    def order(self, seed: int, batch_size: int = 1) -> Order:
        """The order in which a run sees the samples: position p of the run sees sample `order.index_at(p)`.

        Args:
            seed: Of the run.
            batch_size: Samples a step. Of data in shards, each part of a batch comes from other shards, so that processes
                that share batches out read other shards.
        """

    def check(self) -> None:
        """Refuses data that nothing can be learned from; of data that is not in memory, it looks at a part.

        Raises:
            DataError: There are no samples, some are not finite, or all are the same.
        """
        if len(self) == 0:
            raise DataError("the data set has no samples")
        numbers = self.spread(MOST_CHECKED)
        _refuse_useless(self.take(numbers).x, numbers, self)


@dataclass(frozen=True)
class Dataset(AnyDataset):
    """Samples in memory or mapped from disk.

    Args:
        x: Shape (N, *spec.shape); uint8 for images, float32 for the rest.
        spec: What one sample is.
        labels: Shape (N,), int64 in [0, num_classes), or None.
        texts: N captions, or None.
        skipped: What could not be read, one line each.
        augmentation: What training does to a sample each time that it sees it.
        regions: What stands where in the samples, where that is known.
    """

    x: Tensor
    spec: Spec
    labels: Tensor | None = None
    texts: tuple[str, ...] | None = None
    skipped: tuple[str, ...] = field(default=(), compare=False)
    augmentation: Augmentation = field(default=Augmentation(), compare=False)
    regions: Regions | None = None

    def __len__(self) -> int:
        return len(self.x)

    def take(self, indices: Tensor) -> Dataset:
        """The samples at `indices`, of shape (n,), in that order."""
        labels = None if self.labels is None else self.labels[indices]
        texts = None if self.texts is None else tuple(self.texts[int(i)] for i in indices)
        regions = None if self.regions is None else self.regions.take(indices)
        return Dataset(self.x[indices], self.spec, labels, texts, augmentation=self.augmentation, regions=regions)

    def spread(self, most: int = MOST_IN_PART) -> Tensor:
        """All of them."""
        return torch.arange(len(self))

    def part(self, most: int = MOST_IN_PART) -> Dataset:
        """The data set as it is."""
        return self

    def order(self, seed: int, batch_size: int = 1) -> Order:
        """A permutation of all samples in every epoch."""
        return ShuffledOrder(len(self), seed)

    def split(self, fraction: float, seed: int = 0) -> tuple[Dataset, Dataset]:
        """See `AnyDataset.split`."""
        held_out = round(len(self) * fraction)
        if held_out == 0:  # as it is: data that is mapped from disk stays there
            return self, self.take(torch.zeros(0, dtype=torch.int64))
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        return self.take(order[held_out:].sort().values), self.take(order[:held_out].sort().values)

    def fingerprint(self) -> str:
        """SHA-256 of the samples, their labels and their specification, as 64 hexadecimal digits."""
        digest = hashlib.sha256(repr((self.spec, self.texts)).encode())
        where = () if self.regions is None else self.regions.tensors().values()
        if self.regions is not None:
            digest.update(repr((self.regions.box_names, self.regions.map_names)).encode())
        for tensor in (self.x, self.labels, *where):
            if tensor is not None:
                digest.update(tensor.contiguous().numpy().reshape(-1).data)
        return digest.hexdigest()

    def check(self) -> None:
        """Refuses data that nothing can be learned from.

        Raises:
            DataError: There are no samples, some are not finite, or all are the same.
        """
        if len(self) == 0:
            raise DataError("the data set has no samples")
        _refuse_useless(self.x, self.spread(), self)


def _refuse_useless(x: Tensor, numbers: Tensor, whole: AnyDataset) -> None:
    """Refuses samples that are not finite, or all the same.

    Args:
        x: Shape (n, ...).
        numbers: Shape (n,): which samples of the data they are.
        whole: The data.

    Raises:
        DataError: They are.
    """
    looked_at = f"{len(x)} samples" + (f" (looked at, of {len(whole)})" if len(x) < len(whole) else "")
    if x.dtype.is_floating_point:
        bad = ~torch.isfinite(x).flatten(1).all(1)
        if bad.any():
            first = whole.called(int(numbers[bad][0]))
            raise DataError(
                f"{int(bad.sum())} of {looked_at} hold NaN or infinity (the first is {first}): remove or repair them"
            )
    if bool((x == x[:1]).all()):
        raise DataError(
            f"all {looked_at} are the same, so there is nothing to learn: look at the data with `unnoise data`"
        )


class DataSource(Checked, ABC):
    """A frozen dataclass that says where data comes from; `load` brings it."""

    @abstractmethod
    def load(self, progress: Progress | None = None) -> AnyDataset:
        """The data set.

        Args:
            progress: Told what is being done, how many are done and how many there are.

        Raises:
            DataError: Nothing can be read there.
        """


datasets: Registry[DataSource] = Registry("data set", "unnoise.data")
