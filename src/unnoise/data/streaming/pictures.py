"""A folder of pictures, read as they are needed: runs of files that lie side by side are what shards are elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray

from ...errors import DataError
from .formats import OpenShard, Record, Scan, ShardFormat
from .store import Shard, Store

RUN = 1024
"""Files of a run."""


@dataclass(frozen=True)
class PictureFormat(ShardFormat):
    """Files of their own, below a folder of this machine."""

    root: str

    suffixes: ClassVar[tuple[str, ...]] = ()
    scan_reads_all: ClassVar[bool] = False

    def scan(self, store: Store, shard: Shard) -> Scan:
        """Never asked: the files are known from the listing of the folder."""
        raise DataError(f"{shard.name} is no file: list the folder again")

    def open(self, store: Store, shard: Shard, places: dict[str, NDArray[Any]], span: int) -> OpenShard:
        """See `ShardFormat.open`."""
        return _Run(Path(self.root), places)


class _Run(OpenShard):
    def __init__(self, root: Path, places: dict[str, NDArray[Any]]) -> None:
        self.root, self.places = root, places

    def records(self, rows: Sequence[int]) -> list[Record]:
        """See `OpenShard.records`."""
        return [self._record(row) for row in rows]

    def _record(self, row: int) -> Record:
        name = str(self.places["name"][row])
        caption = str(self.places["caption"][row]) if "caption" in self.places else None
        path = self.root / name
        try:
            size, encoded = path.stat().st_size, path.read_bytes()
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from None
        if size != self.places["size"][row]:
            raise DataError(f"{path} has changed since the data was opened: start again")
        return Record(name, encoded, caption)

    def close(self) -> None:
        """See `OpenShard.close`."""
