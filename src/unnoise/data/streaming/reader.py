"""Reads samples out of shards: all that a process needs that decodes for another one. Without torch, so that it starts at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from .._pixels import bombs_refused, decode, why_not
from .formats import OpenShard, Record, ShardFormat
from .index import Entry
from .store import Store

Values = NDArray[np.uint8] | NDArray[np.float32]


@dataclass(frozen=True)
class Read:
    """What was read.

    Args:
        x: Shape (n, *shape), uint8 for pictures, float32 for the rest; zeros where a sample is broken.
        captions: Of each, empty where it has none.
        broken: What is wrong with a sample, by its place in `x`.
    """

    x: Values
    captions: tuple[str, ...]
    broken: dict[int, str]


@dataclass
class Reader:
    """Reads the samples of a data set.

    Args:
        form: What its shards are.
        store: Opens them.
        entries: The index.
        shape: Of one sample; pictures are brought to it.
        pictures: Whether samples are pictures.
        all_grey: Whether the data was found to be grey, so that a picture in colour must not be.
        span: About how many neighbouring samples are asked for in turn.
        most_open: Shards that are held open.
    """

    form: ShardFormat
    store: Store
    entries: Sequence[Entry]
    shape: tuple[int, ...]
    pictures: bool
    all_grey: bool
    span: int
    most_open: int
    _open: dict[int, OpenShard] = field(default_factory=dict, repr=False)

    def __getstate__(self) -> dict[str, object]:
        """Without what is open, which each process opens for itself, and without labels, which none reads."""
        entries = [replace(entry, scan=replace(entry.scan, labels=None)) for entry in self.entries]
        return {**self.__dict__, "entries": entries, "_open": {}}

    def records(self, shard: int, rows: Sequence[int]) -> list[Record]:
        """Samples as they lie in a shard.

        Raises:
            DataError: The shard cannot be read, or has changed.
        """
        if shard in self._open:
            opened = self._open[shard] = self._open.pop(shard)  # the latest stands last
        else:
            while len(self._open) >= self.most_open:
                self._open.pop(next(iter(self._open))).close()
            entry = self.entries[shard]
            opened = self._open[shard] = self.form.open(self.store, entry.shard, entry.places(), self.span)
        return opened.records(rows)

    def read(self, shards: Sequence[int], rows: Sequence[int]) -> Read:
        """Samples as a model sees them.

        Args:
            shards: Shape (n,): where each lies.
            rows: Shape (n,): which of the shard's samples it is.

        Raises:
            DataError: A shard cannot be read, or has changed.
        """
        x = np.zeros((len(rows), *self.shape), np.uint8 if self.pictures else np.float32)
        captions, broken = [""] * len(rows), {}
        at: dict[int, list[int]] = {}
        for i, shard in enumerate(shards):
            at.setdefault(int(shard), []).append(i)
        with bombs_refused():
            for shard, places in at.items():
                for i, record in zip(places, self.records(shard, [int(rows[i]) for i in places]), strict=True):
                    captions[i] = record.caption or ""
                    try:
                        x[i] = self._values(record)
                    except DataError:
                        raise
                    except Exception as error:  # Pillow raises nearly anything for a broken file
                        broken[i] = f"{record.name}: {why_not(error)}"
        return Read(x, tuple(captions), broken)

    def _values(self, record: Record) -> Values:
        value = record.value
        if value is None:
            raise ValueError(
                record.missing or "there is no image" if self.pictures else "there is no array that can be read"
            )
        if isinstance(value, bytes):
            if not self.pictures:
                raise DataError(
                    f"{record.name} is an image, and the samples before it are arrays: give data of one kind"
                )
            return self._pixels(value, record)
        if self.pictures or value.shape != self.shape:
            raise DataError(f"{record.name} is an array of shape {value.shape}, and {self.shape} was expected")
        return value.astype(np.float32, copy=False)

    def _pixels(self, encoded: bytes, record: Record) -> Values:
        channels, size = self.shape[0], self.shape[1]
        pixels = decode(encoded, size, 0 if self.all_grey else channels)
        if len(pixels) != channels:
            raise DataError(
                f"{record.name} has colours, and the images before it are grey: set data.channels to 3 or 1"
            )
        return pixels

    def close(self) -> None:
        """Lets go of all shards."""
        while self._open:
            self._open.popitem()[1].close()

    def __del__(self) -> None:
        self.close()
