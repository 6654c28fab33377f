"""A data set in shards: samples are read when they are asked for, and what is open stays bounded."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import DataError
from .._pixels import EMBED
from ..augmentation import Augmentation
from ..base import MOST_IN_PART, AnyDataset, Dataset, Spec
from ..order import InterleavedOrder, Order, ShuffledOrder
from .reader import Read, Reader

LARGEST_PART = 2**31
"""Bytes of a part that is held in memory at most."""
_RUNS = 16


@dataclass(frozen=True, eq=False)
class ShardedDataset(AnyDataset):
    """Samples in shards.

    A sample that is broken is replaced by the next one of its shard that can be read, picture, label and caption together:
    the same in every run, and told in `skipped` from then on.

    Args:
        reader: Reads them.
        spec: What one sample is.
        labels: Shape (N,), of all samples of the shards, or None.
        captioned: Whether every sample has a caption.
        counts: How many samples each shard has.
        lanes: Places that are read in turn; see `InterleavedOrder`. 0 where any sample is read at no cost.
        window: Samples that are permuted among each other at each of these places.
        rows: Shape (n,): the samples that belong to this part of the data, in rising order; None for all.
        left_out: What is not read at all, one line each.
        augmentation: What training does to a sample each time that it sees it.
    """

    reader: Reader
    spec: Spec
    labels: NDArray[np.int32] | None
    captioned: bool
    counts: NDArray[np.int64]
    lanes: int
    window: int
    rows: NDArray[np.int64] | None = None
    left_out: tuple[str, ...] = ()
    augmentation: Augmentation = field(default=Augmentation())
    _broken: dict[str, None] = field(default_factory=dict, repr=False)  # lines in the order of their finding

    @property
    def skipped(self) -> tuple[str, ...]:
        """See `AnyDataset.skipped`; all parts of one data set tell the same."""
        return (*self.left_out, *self._broken)

    def __len__(self) -> int:
        return int(self.counts.sum()) if self.rows is None else len(self.rows)

    @property
    def starts(self) -> NDArray[np.int64]:
        """Where each shard begins in the numbers of all samples."""
        return np.concatenate([[0], np.cumsum(self.counts)])

    def places(self, indices: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The shard of each sample, and its row in there."""
        numbers = indices if self.rows is None else self.rows[indices]
        shards = np.searchsorted(self.starts, numbers, side="right") - 1
        return shards, numbers - self.starts[shards]

    def take(self, indices: Tensor) -> Dataset:
        """The samples at `indices`, read now; see `AnyDataset.take`."""
        numbers = indices.numpy().astype(np.int64)
        return self.made_of(numbers, self.reader.read(*(each.tolist() for each in self.places(numbers))))

    def made_of(self, indices: NDArray[np.int64], read: Read) -> Dataset:
        """What was read of the samples at `indices` as a data set in memory, the broken ones replaced.

        Raises:
            DataError: None of a shard's samples can be read.
        """
        indices, captions = indices.copy(), list(read.captions)
        for i in read.broken:
            indices[i], captions[i] = self._instead(int(indices[i]), read, i)
        numbers = indices if self.rows is None else self.rows[indices]
        labels = None if self.labels is None else torch.from_numpy(self.labels[numbers].astype(np.int64))
        texts = tuple(captions) if self.captioned else None
        told = tuple(f"{line}; replaced by its neighbour" for line in read.broken.values())
        self._broken.update(dict.fromkeys(told))
        return Dataset(torch.from_numpy(read.x), self.spec, labels, texts, told, self.augmentation)

    def _instead(self, index: int, read: Read, place: int) -> tuple[int, str]:
        """Puts the next sample of the shard that can be read into the place of a broken one; its index and caption."""
        shard = int(self.places(np.array([index]))[0][0])
        ends = self._ends()
        first, last = int(ends[shard - 1]) if shard else 0, int(ends[shard])
        for step in range(1, last - first):
            other = first + (index - first + step) % (last - first)
            again = self.reader.read(*(each.tolist() for each in self.places(np.array([other]))))
            if not again.broken:
                read.x[place] = again.x[0]
                return other, again.captions[0]
        what_to_do = "" if read.broken[place].endswith(EMBED) else ": remove it or make it again"
        raise DataError(
            f"none of the {last - first} samples of {self.reader.entries[shard].shard.name} can be read, e.g. "
            f"{read.broken[place]}{what_to_do}"
        )

    def _ends(self) -> NDArray[np.int64]:
        """The number of samples of this part up to the end of each shard."""
        ends = np.cumsum(self.counts)
        return ends if self.rows is None else np.searchsorted(self.rows, ends)

    def called(self, index: int) -> str:
        """See `AnyDataset.called`; with the shard that holds it, and its name in there."""
        shards, rows = self.places(np.array([index]))
        [record] = self.reader.records(int(shards[0]), [int(rows[0])])
        return f"number {index}, {record.name}"

    def spread(self, most: int = MOST_IN_PART) -> Tensor:
        """Up to `most` samples, or 2 GB of them: runs of neighbours, from places spread evenly over the data."""
        one = int(np.prod(self.spec.shape)) * (1 if self.spec.kind == "image" else 4)
        count = min(most, len(self), max(1, LARGEST_PART // one))
        if count == len(self):
            return torch.arange(count)
        runs = min(_RUNS, count)
        lengths = [count // runs + (i < count % runs) for i in range(runs)]
        starts = [i * len(self) // runs for i in range(runs)]
        chosen = [torch.arange(start, start + length) for start, length in zip(starts, lengths, strict=True)]
        return torch.cat(chosen)

    def split(self, fraction: float, seed: int = 0) -> tuple[AnyDataset, AnyDataset]:
        """The samples in two parts, chosen one by one and not by shards; see `AnyDataset.split`."""
        held_out = round(len(self) * fraction)
        if held_out == 0:
            return self, replace(self, rows=np.zeros(0, np.int64))
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed)).numpy()
        known = np.arange(len(self)) if self.rows is None else self.rows
        parts = np.sort(order[held_out:]), np.sort(order[:held_out])
        training, rest = (replace(self, rows=known[part]) for part in parts)
        return training, rest

    def layout(self) -> str:
        """See `AnyDataset.layout`."""
        shards = [entry.shard for entry in self.reader.entries]
        total = sum(shard.size for shard in shards)
        size = f"{total / 1e9:,.1f} GB" if total >= 1e9 else f"{total / 1e6:,.1f} MB"
        if not self.lanes:
            return f"{size} of files, read as they are needed"
        kind = shards[0].name.rpartition(".")[2]
        where = "at a URL" if shards[0].remote else "here"
        mixed = f"read at {self.lanes} places in turn, {self.window:,} samples shuffled at each"
        return f"{len(shards):,} {kind} {'shard' if len(shards) == 1 else 'shards'}, {size}, {where}; {mixed}"

    def fingerprint(self) -> str:
        """SHA-256 of what each shard holds, of the labels and the specification, and of which samples belong to it.

        What a shard on this machine holds was read when the index was made; of remote ones the store says when they change.
        """
        hashed = hashlib.sha256(repr((self.spec, self.captioned, self.reader.shape)).encode())
        for entry in self.reader.entries:
            hashed.update(repr((entry.shard.name, entry.scan.count, entry.content)).encode())
        for values in (self.labels, self.rows):
            hashed.update(b"-" if values is None else values.tobytes())
        return hashed.hexdigest()

    def order(self, seed: int, batch_size: int = 1) -> Order:
        """Shards from front to back, several at a time; see `InterleavedOrder`. Files of their own are all shuffled."""
        if not self.lanes:
            return ShuffledOrder(len(self), seed)
        divisor = max(n for n in range(1, min(self.lanes, batch_size) + 1) if batch_size % n == 0)
        # So that each part of a batch has lanes of its own; where that would leave few lanes, one sample of each in turn.
        lanes, stripe = (divisor, batch_size // divisor) if 2 * divisor >= self.lanes else (self.lanes, 1)
        return InterleavedOrder(np.diff(self._ends(), prepend=0), seed, lanes, self.window, stripe)

    def readers_of(self, indices: NDArray[np.int64], readers: int) -> NDArray[np.int64]:
        """Which of several readers reads each sample: neighbours have the same, as they are read together."""
        shards, rows = self.places(indices)
        if np.count_nonzero(self.counts) >= 4 * readers:
            return shards % readers
        return (shards + rows // max(1, self.window)) % readers
