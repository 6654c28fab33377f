"""Shards that are tables: Parquet files, and the Arrow files of a data set saved by Hugging Face's `save_to_disk`."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from .._pixels import not_embedded
from .formats import OpenShard, Record, Scan, ShardFormat
from .store import Shard, Store

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class TableFormat(ShardFormat):
    """A table: pictures in a column of bytes (or of structs with a field "bytes"), or points in columns of numbers.

    Args:
        image_column: Holds encoded pictures; where there is none, the columns of numbers make points.
        label_column: Holds whole numbers or words; "" for none.
        text_column: Holds captions; "" for none.
    """

    image_column: str = "image"
    label_column: str = "label"
    text_column: str = "text"

    @abstractmethod
    def table(self, file: IO[bytes], shard: Shard) -> _Groups:
        """The table in an open file, by groups of rows."""

    def scan(self, store: Store, shard: Shard) -> Scan:
        """See `ShardFormat.scan`: lengths, labels and captions, and no pictures where the format can tell them apart."""
        from .._columns import check_labels, class_names

        with store.open(shard) as file:
            groups = self.table(file, shard)
            names = groups.schema.names
            notes = self._numbers(groups)[1]
            labels: NDArray[Any] | None = None
            if self.label_column in names:
                values = groups.column(self.label_column)
                check_labels(values, self.label_column, shard.name)
                labels = np.array(values.to_pylist())
            captioned, first = 0, 0
            if self.text_column in names:
                captions = groups.column(self.text_column)
                captioned = len(captions) - captions.null_count
                first = captions.is_null().index(True).as_py()
            without = f"row {first}" if captioned < groups.count else ""
            given = class_names(groups.schema, self.label_column)
            return Scan(groups.count, {"ends": groups.ends}, labels, given, captioned, groups.at_once, notes, without)

    def _numbers(self, groups: _Groups) -> tuple[list[str], tuple[str, ...]]:
        """The columns of points, where there is no column of pictures, and a line for each that is left out."""
        from .._columns import numeric_columns

        if self.image_column in groups.schema.names:
            return [], ()
        return numeric_columns(groups.schema, self.label_column, self.text_column)

    def open(self, store: Store, shard: Shard, places: dict[str, NDArray[Any]], span: int) -> OpenShard:
        """See `ShardFormat.open`."""
        groups = self.table(store.open(shard), shard)
        if not np.array_equal(groups.ends, places["ends"]):
            raise DataError(f"the shard {shard.name} has changed since the data was opened: start again")
        columns = [self.image_column] if self.image_column in groups.schema.names else self._numbers(groups)[0]
        text = self.text_column if self.text_column in groups.schema.names else ""
        return _OpenTable(groups, shard, columns, text, image=columns == [self.image_column], span=span)


class _Groups:
    """A table as groups of rows, each of which is read as a whole.

    Args:
        schema: Of the table.
        ends: The number of rows up to the end of each group.
        at_once: Bytes of the largest group.
    """

    schema: pa.Schema
    ends: NDArray[np.int64]
    at_once: int

    @property
    def count(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def column(self, name: str) -> pa.ChunkedArray:
        """A whole column."""
        raise NotImplementedError

    def group(self, number: int, columns: list[str]) -> pa.Table:
        """Some columns of one group."""
        raise NotImplementedError

    def close(self) -> None:
        """Lets go of the file."""
        raise NotImplementedError


@dataclass(frozen=True)
class ParquetFormat(TableFormat):
    """Parquet files, read by row group."""

    suffixes: ClassVar[tuple[str, ...]] = (".parquet",)
    scan_reads_all: ClassVar[bool] = False

    def table(self, file: IO[bytes], shard: Shard) -> _Groups:
        """See `TableFormat.table`."""
        return _ParquetGroups(file, shard)


class _ParquetGroups(_Groups):
    def __init__(self, file: IO[bytes], shard: Shard) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            self.file, self.raw = pq.ParquetFile(file), file
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{shard.place} cannot be read as Parquet: {str(error).splitlines()[0]}") from None
        about = self.file.metadata
        groups = [about.row_group(i) for i in range(about.num_row_groups)]
        self.schema = self.file.schema_arrow
        self.ends = np.cumsum(np.array([group.num_rows for group in groups], dtype=np.int64))
        self.at_once = max((group.total_byte_size for group in groups), default=0)

    def column(self, name: str) -> pa.ChunkedArray:
        return self.file.read(columns=[name]).column(name)

    def group(self, number: int, columns: list[str]) -> pa.Table:
        return self.file.read_row_group(number, columns=columns, use_threads=False)

    def close(self) -> None:
        self.file.close()
        self.raw.close()


@dataclass(frozen=True)
class ArrowFormat(TableFormat):
    """Arrow files, as `datasets.Dataset.save_to_disk` writes them: mapped into memory where they lie on this machine."""

    suffixes: ClassVar[tuple[str, ...]] = (".arrow",)
    scan_reads_all: ClassVar[bool] = True

    def table(self, file: IO[bytes], shard: Shard) -> _Groups:
        """See `TableFormat.table`."""
        return _ArrowGroups(file, shard)


class _ArrowGroups(_Groups):
    at_once = 0  # a mapped file is read where it is looked at

    def __init__(self, file: IO[bytes], shard: Shard) -> None:
        import pyarrow as pa

        self.raw = file
        name = getattr(file, "name", None)
        try:
            source = pa.memory_map(name) if isinstance(name, str) and os.path.isfile(name) else file
            try:
                self.table = pa.ipc.open_stream(source).read_all()
            except pa.ArrowInvalid:
                source.seek(0)
                self.table = pa.ipc.open_file(source).read_all()
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{shard.place} cannot be read as Arrow: {str(error).splitlines()[0]}") from None
        self.schema = self.table.schema
        self.batches = self.table.to_batches()
        self.ends = np.cumsum(np.array([len(batch) for batch in self.batches], dtype=np.int64))

    def column(self, name: str) -> pa.ChunkedArray:
        return self.table.column(name)

    def group(self, number: int, columns: list[str]) -> pa.Table:
        import pyarrow as pa

        return pa.Table.from_batches([self.batches[number]]).select(columns)

    def close(self) -> None:
        self.raw.close()


class _OpenTable(OpenShard):
    def __init__(self, groups: _Groups, shard: Shard, columns: list[str], text: str, image: bool, span: int) -> None:
        self.groups, self.shard, self.columns, self.text, self.image = groups, shard, columns, text, image
        rows = max(1, groups.count // max(1, len(groups.ends)))
        self.most = 2 + span // rows
        self.kept: dict[int, pa.Table] = {}

    def records(self, rows: Sequence[int]) -> list[Record]:
        """See `OpenShard.records`; the groups that were read last are kept, as the next rows are near."""
        found = {}
        for row in sorted(set(rows)):
            number = int(np.searchsorted(self.groups.ends, row, side="right"))
            first = int(self.groups.ends[number - 1]) if number else 0
            found[row] = self._record(self._group(number), row - first, f"{self.shard.name} row {row}")
        return [found[row] for row in rows]

    def _group(self, number: int) -> pa.Table:
        import pyarrow as pa

        if number not in self.kept:
            while len(self.kept) >= self.most:
                del self.kept[next(iter(self.kept))]
            try:
                columns = [*self.columns, *([self.text] if self.text else [])]
                self.kept[number] = self.groups.group(number, columns).combine_chunks()
            except (pa.ArrowException, OSError) as error:
                raise DataError(f"{self.shard.place} cannot be read: {str(error).splitlines()[0]}") from None
        return self.kept[number]

    def _record(self, table: pa.Table, row: int, name: str) -> Record:
        caption = table.column(self.text)[row].as_py() if self.text else None
        if not self.image:
            cells = [table.column(column)[row].as_py() for column in self.columns]
            return Record(name, np.array([np.nan if cell is None else cell for cell in cells], np.float32), caption)
        value = table.column(self.columns[0])[row].as_py()
        missing = ""
        if isinstance(value, dict):
            missing = not_embedded(value["path"]) if value.get("bytes") is None and value.get("path") else ""
            value = value.get("bytes")
        if value is not None and not isinstance(value, bytes):
            kind = table.column(self.columns[0]).type
            raise DataError(
                f"column {self.columns[0]!r} of {self.shard.name} holds {kind}, no images: see data.image_column"
            )
        return Record(name, value, caption, missing)

    def close(self) -> None:
        """See `OpenShard.close`."""
        self.kept.clear()
        self.groups.close()
