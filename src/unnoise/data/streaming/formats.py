"""What a shard can be: how its samples are found once, and read later by number."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from numpy.typing import NDArray

from .store import Shard, Store


class Record(NamedTuple):
    """One sample as it lies in its shard.

    Args:
        name: In messages.
        value: An encoded picture, or numbers; None where there is neither.
        caption: Its caption, or None.
        missing: Why there is no value, where that is known.
    """

    name: str
    value: bytes | NDArray[Any] | None
    caption: str | None
    missing: str = ""


@dataclass(frozen=True)
class Scan:
    """What was found in a shard.

    Args:
        count: Samples in it.
        places: Where they are, in the terms of the format: arrays that its `open` is given again.
        labels: Shape (count,): whole numbers, words or truth values; None where there are none.
        class_names: The names of labels that are numbers, where the shard gives them.
        captioned: Samples with a caption.
        uncaptioned: What the first sample without one is called, where there is one.
        at_once: Bytes that must be read at once to get at one sample, at most.
        notes: What is left out, one line each.
    """

    count: int
    places: dict[str, NDArray[Any]] = field(default_factory=dict)
    labels: NDArray[Any] | None = None
    class_names: tuple[str, ...] = ()
    captioned: int = 0
    at_once: int = 0
    notes: tuple[str, ...] = ()
    uncaptioned: str = ""


class OpenShard(ABC):
    """A shard that samples are read from; what was read a moment ago may be kept."""

    @abstractmethod
    def records(self, rows: Sequence[int]) -> list[Record]:
        """The samples at some rows, in that order.

        Raises:
            DataError: The shard cannot be read.
        """

    @abstractmethod
    def close(self) -> None:
        """Lets go of it."""


class ShardFormat(ABC):
    """A kind of shard; a frozen dataclass of what there is to know for reading it."""

    suffixes: ClassVar[tuple[str, ...]]
    scan_reads_all: ClassVar[bool]
    """Whether a scan has to read the whole shard, and not only its end."""

    @abstractmethod
    def scan(self, store: Store, shard: Shard) -> Scan:
        """What is in a shard, from one pass over it.

        Raises:
            DataError: It is damaged, or of another kind.
        """

    @abstractmethod
    def open(self, store: Store, shard: Shard, places: dict[str, NDArray[Any]], span: int) -> OpenShard:
        """A shard to read samples from.

        Args:
            store: Opens it.
            shard: Which one.
            places: From its scan.
            span: About how many neighbouring samples are asked for in turn.

        Raises:
            DataError: It cannot be read, or is not the one that was scanned.
        """
