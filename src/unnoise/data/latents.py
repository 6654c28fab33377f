"""Latents of a data set in shards on the disk, which are mapped into memory and read as they are needed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DataError
from ..files import write_atomically
from .augmentation import Augmentation
from .base import MOST_IN_PART, AnyDataset, Dataset, Spec
from .order import Order, ShuffledOrder


def write_shard(path: Path, latents: Tensor, labels: Tensor | None, texts: Sequence[str] | None) -> None:
    """Writes a shard whole or not at all.

    Args:
        path: The file.
        latents: Shape (n, C, ...).
        labels: Shape (n,), where there are some.
        texts: n captions, where there are some.

    Raises:
        OSError: The disk is full, or may not be written to.
    """
    from safetensors.torch import save

    tensors = {"latents": latents.contiguous()} | ({} if labels is None else {"labels": labels.contiguous()})
    about = None if texts is None else {"texts": json.dumps(list(texts))}
    write_atomically(path, save(tensors, metadata=about))


@dataclass(frozen=True)
class Shard:
    """What a shard holds; the latents stay on the disk until they are looked at.

    Args:
        latents: Shape (n, C, ...).
        labels: Shape (n,), int64, or None.
        texts: n captions, or None.
    """

    latents: Tensor
    labels: Tensor | None
    texts: tuple[str, ...] | None


def read_shard(path: Path) -> Shard:
    """A shard that `write_shard` wrote.

    Raises:
        DataError: It is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            texts = (file.metadata() or {}).get("texts")
            labels = file.get_tensor("labels") if "labels" in file.keys() else None
            return Shard(file.get_tensor("latents"), labels, None if texts is None else tuple(json.loads(texts)))
    except (OSError, SafetensorError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error}): remove it, and it is made again") from None


@dataclass(frozen=True, eq=False)
class LatentDataset(AnyDataset):
    """Latents in shards, with the labels and captions of the samples that they are of.

    Args:
        shards: In order.
        spec: What one sample is: an array, with the names of the labels.
        rows: Shape (n,): the samples that belong to this part of the data, in rising order; None for all.
        augmentation: What training does to a sample each time that it sees it.
    """

    shards: tuple[Shard, ...]
    spec: Spec
    rows: NDArray[np.int64] | None = None
    augmentation: Augmentation = field(default=Augmentation())

    @property
    def skipped(self) -> tuple[str, ...]:
        """Nothing: what could not be read was told when the latents were made."""
        return ()

    @property
    def starts(self) -> NDArray[np.int64]:
        """Where each shard begins in the numbers of all samples, and where the last one ends."""
        return np.cumsum([0, *(len(shard.latents) for shard in self.shards)])

    def __len__(self) -> int:
        return int(self.starts[-1]) if self.rows is None else len(self.rows)

    def take(self, indices: Tensor) -> Dataset:
        """See `AnyDataset.take`."""
        numbers = indices.numpy() if self.rows is None else self.rows[indices.numpy()]
        starts = self.starts
        where = np.searchsorted(starts, numbers, side="right") - 1
        found = [
            (self.shards[shard], int(number - starts[shard])) for shard, number in zip(where, numbers, strict=True)
        ]
        latents = [shard.latents[row] for shard, row in found]
        labels = [shard.labels[row] for shard, row in found if shard.labels is not None]
        texts = [shard.texts[row] for shard, row in found if shard.texts is not None]
        first = self.shards[0]
        return Dataset(
            torch.stack(latents) if latents else first.latents[:0],
            self.spec,
            None if first.labels is None else torch.stack(labels) if labels else first.labels[:0],
            None if first.texts is None else tuple(texts),
            augmentation=self.augmentation,
        )

    def spread(self, most: int = MOST_IN_PART) -> Tensor:
        """Up to `most` samples, spread evenly over the data."""
        count = min(most, len(self))
        return torch.arange(count) * len(self) // max(count, 1)

    def split(self, fraction: float, seed: int = 0) -> tuple[LatentDataset, LatentDataset]:
        """The samples in two parts, the same as those of the data that they are latents of; see `AnyDataset.split`."""
        held_out = round(len(self) * fraction)
        if held_out == 0:
            return self, replace(self, rows=np.zeros(0, np.int64))
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed)).numpy()
        known = np.arange(len(self)) if self.rows is None else self.rows
        training, rest = (replace(self, rows=known[np.sort(each)]) for each in (order[held_out:], order[:held_out]))
        return training, rest

    def layout(self) -> str:
        """See `AnyDataset.layout`."""
        shards = "shard" if len(self.shards) == 1 else "shards"
        return f"latents in {len(self.shards):,} {shards}, mapped into memory"

    def fingerprint(self) -> str:
        """SHA-256 of the latents, the labels and the captions, and of which samples belong to it."""
        hashed = hashlib.sha256(repr((self.spec, [shard.texts for shard in self.shards])).encode())
        for shard in self.shards:
            hashed.update(shard.latents.contiguous().view(torch.uint8).numpy().data)
            hashed.update(b"-" if shard.labels is None else shard.labels.numpy().tobytes())
        hashed.update(b"-" if self.rows is None else self.rows.tobytes())
        return hashed.hexdigest()

    def order(self, seed: int, batch_size: int = 1) -> Order:
        """A permutation of all samples in every epoch."""
        return ShuffledOrder(len(self), seed)
