"""Parquet files in the convention of Hugging Face data sets: images as bytes, or points as columns of numbers."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import DataError
from ..options import option
from ._boxes import read_objects, size_of
from ._cache import Album, cache_key, load_pictures
from ._columns import class_names, numeric_columns, read_labels, read_numbers, read_texts
from ._pixels import MEASURED, Picture, check_channels, not_embedded
from ._splits import of_split
from .augmentation import Augmentation
from .base import Dataset, DataSource, Progress, Spec, datasets
from .label_maps import decode_map, numbered
from .regions import Regions, boxes_of

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH = 256
_DEFAULTS = {
    "image_column": "image", "label_column": "label", "text_column": "text", "objects_column": "objects", "map_column": "",
}  # fmt: skip


@datasets.register("parquet")
@dataclass(frozen=True)
class ParquetDataset(DataSource):
    """The rows of one Parquet file, of all that match a pattern, or of all below a folder, in the order of their names.

    A table with an image column gives images, decoded as `FolderDataset` does; one without gives points, whose
    coordinates are its columns of numbers. Class names come from the file's Hugging Face metadata; without them, the
    distinct labels are the classes. Images that cannot be read are skipped and named in `Dataset.skipped`.

    Args:
        path: A file, a pattern such as "train-*.parquet", or a folder.
        image_column: Holds encoded images: bytes, or a struct with a field "bytes".
        label_column: Holds whole numbers or words; "" for none.
        text_column: Holds captions, as strings or lists of strings; "" for none. Of several columns, with commas between, each
            makes one of a sample's captions, which then stand on lines of their own: "text,keywords".
        objects_column: Holds boxes around what the images show: structs of `bbox`, a list of [x, y, width, height] in pixels, and
            `categories`, as Hugging Face's data sets for detection do; "" for none.
        map_column: Holds label maps: encoded images whose every pixel is the number of a class (255: nothing is known).
        size: Side of the squares in pixels. 0: squares of one size up to 256 keep it; otherwise the most common smaller
            side of the first 1,000 images, at most 256, rounded down to a multiple of 8.
        channels: 1 grey, 3 colour, 4 colour and transparency; 0 for 1 if every pixel of every image is grey, else 3.
        limit: How many rows are read at most; 0 for all.
        cache: Whether the pixels are kept in the user's cache, so that the next load only maps them into memory.
        split: Where file names or folders begin with train, test or validation: which of these are read. "auto": those of
            train where there are any, else all.
        flips: Whether training sees every other picture mirrored, by chance.
        shift: By how many pixels at most training moves a picture each way.
    """

    path: str = option(help="a .parquet file, a pattern, or a folder of such files")
    image_column: str = option("image", help="the column of encoded images")
    label_column: str = option("label", help="the column of labels; empty for none")
    text_column: str = option("text", help="the column of captions, or several with commas between; empty for none")
    objects_column: str = option("objects", help="the column of boxes around what images show; empty for none")
    map_column: str = option("", help="the column of label maps, images whose pixels are class numbers; empty for none")
    size: int = option(0, help="side of the square images in pixels; 0 to infer it", low=0, high=4096)
    channels: int = option(0, help="1 grey, 3 colour, 4 with transparency; 0 to infer it", low=0, high=4)
    limit: int = option(0, help="how many rows are read at most; 0 for all", low=0)
    cache: bool = option(True, help="keep the decoded pixels in the user's cache")
    split: str = option(
        "auto", help="which of the files: train, test, validation, all; auto is train where names say so"
    )
    flips: bool = option(False, help="mirror every other picture, by chance, whenever it is trained on")
    shift: int = option(0, help="move pictures by up to so many pixels whenever they are trained on", low=0, high=64)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_channels(self.channels)

    def load(self, progress: Progress | None = None) -> Dataset:
        """Images, uint8 of shape (N, C, size, size), or points, float32 of shape (N, D).

        Raises:
            DataError: There is no such file, it cannot be read, its columns do not fit, or no image can be read.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        files, left_out = of_split(find_files(self.path), Path(self.path).expanduser(), self.split)
        first, reading = None, files[0]
        try:
            for reading in files:
                schema = pq.read_schema(reading)
                first = first or schema
                self._check_columns(reading, schema, first)
            data = self._load(files, first, progress)
            return replace(data, skipped=(*left_out, *data.skipped))
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{reading} cannot be read as Parquet: {str(error).splitlines()[0]}") from None

    def _check_columns(self, file: Path, schema: pa.Schema, first: pa.Schema) -> None:
        columns = [(setting, getattr(self, setting)) for setting in _DEFAULTS if setting != "text_column"]
        for setting, name in [*columns, *(("text_column", name) for name in self._text_columns)]:
            default = _DEFAULTS[setting]
            if name != default and name and name not in schema.names:
                raise DataError(f"{file} has no column {name!r} (data.{setting}); it has {', '.join(schema.names)}")
            if (name in schema.names) != (name in first.names):
                raise DataError(f"column {name!r} is not in all of the files, see {file}: give files of one kind")
            if class_names(schema, name) != class_names(first, name):
                raise DataError(f"the classes of column {name!r} differ, see {file}: give files of one kind")

    def _load(self, files: Sequence[Path], schema: pa.Schema, progress: Progress | None) -> Dataset:
        images = self.image_column in schema.names
        named = (self.label_column, *self._text_columns)
        columns, left_out = ([], ()) if images else numeric_columns(schema, *named)
        wanted = [name for name in (*columns, *named) if name in schema.names]
        table, total = self._table(files, wanted)
        if total == 0:
            raise DataError(f"{self.path} has no rows: give a file that has some")
        labels, names = self._labels(table, class_names(schema, self.label_column))
        texts, missing = self._texts(table.slice(0, total))
        if not images:
            x = read_numbers(table, columns)
            rows = Dataset(x, Spec("points", (len(columns),), names), labels, texts, (*left_out, *missing))
            return replace(rows.take(torch.arange(total)), skipped=rows.skipped)
        key = cache_key(files, "parquet", self.image_column, self.size, self.channels, total) if self.cache else None
        found = load_pictures(self._album(files, total), key, progress)
        kept = found.kept()
        labels = None if labels is None else labels[kept]
        texts = None if texts is None else tuple(texts[i] for i in kept)
        spec = Spec("image", tuple(found.x.shape[1:]), names)
        augmentation = Augmentation(self.flips, self.shift)
        regions = self._regions(files, schema, total, kept, (spec.shape[1], spec.shape[2]))
        return Dataset(found.x, spec, labels, texts, (*found.skipped, *missing), augmentation, regions)

    def _regions(
        self, files: Sequence[Path], schema: pa.Schema, total: int, kept: list[int], size: tuple[int, int]
    ) -> Regions | None:
        """What stands where in the images that could be read, where columns say so."""
        wanted = [name for name in (self.objects_column, self.map_column) if name and name in schema.names]
        if not wanted:
            return None
        table, _ = self._table(files, wanted)
        rows = table.slice(0, total).take(kept)
        found = Regions()
        if self.objects_column in wanted:
            there = set(kept)
            images = (picture for i, picture in enumerate(islice(_rows(files, self.image_column), total)) if i in there)
            pairs = zip(images, rows.column(self.objects_column).to_pylist(), strict=True)
            boxes, names = boxes_of(
                [read_objects(name, each, size_of(_there(source))) for (name, source), each in pairs]
            )
            found = replace(found, boxes=boxes, box_names=names)
        if self.map_column in wanted:
            encoded = islice(_rows(files, self.map_column), total)
            every = [decode_map(_there(source), f"{name} of {self.map_column}", size) for name, source in encoded]
            maps, names = numbered([every[i] for i in kept], (), self.map_column)
            found = replace(found, maps=maps, map_names=names)
        return found

    def _table(self, files: Sequence[Path], columns: list[str]) -> tuple[pa.Table, int]:
        """These columns of all rows, and how many rows are wanted."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.concat_tables([pq.read_table(file, columns=columns, partitioning=None) for file in files])
        rows = sum(pq.read_metadata(file).num_rows for file in files)
        return table, min(rows, self.limit or rows)

    def _labels(self, table: pa.Table, names: tuple[str, ...]) -> tuple[Tensor | None, tuple[str, ...]]:
        if self.label_column not in table.column_names:
            return None, ()
        return read_labels(table.column(self.label_column), self.label_column, names)

    def _texts(self, table: pa.Table) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
        columns = [name for name in self._text_columns if name in table.column_names]
        found = [read_texts(table.column(name), name) for name in columns]
        notes = tuple(note for _, more in found for note in more)
        complete = [texts for texts, _ in found if texts is not None]
        if not complete or len(complete) < len(found):
            return None, notes
        return tuple("\n".join(dict.fromkeys(filter(None, each))) for each in zip(*complete, strict=True)), notes

    @property
    def _text_columns(self) -> list[str]:
        return [name.strip() for name in self.text_column.split(",") if name.strip()]

    def _album(self, files: Sequence[Path], total: int) -> Album:
        def pictures() -> Iterator[Picture]:
            return islice(_rows(files, self.image_column), total)

        return Album(pictures, lambda: islice(pictures(), MEASURED), total, self.size, self.channels)


def find_files(path: str) -> list[Path]:
    """The Parquet files that a path means, in the order of their names.

    Args:
        path: A file, a pattern, or a folder.

    Raises:
        DataError: There are none.
    """
    where = Path(path).expanduser()
    if where.is_file():
        return [where]
    pattern = where.is_dir()
    found = where.rglob("*.parquet") if pattern else (Path(name) for name in glob.glob(str(where), recursive=True))
    files = sorted(file for file in found if file.is_file() and not file.name.startswith("."))
    if files:
        return files
    if pattern:
        raise DataError(f"there are no .parquet files in {where}: give a file, a pattern or a folder of .parquet files")
    raise DataError(f"there is no file {where}: give a .parquet file, a pattern such as train-*.parquet, or a folder")


def _there(source: bytes | Path | str | None) -> bytes | Path:
    """An encoded picture; nothing where it is missing."""
    return source if isinstance(source, (bytes, Path)) else b""


def _rows(files: Sequence[Path], column: str) -> Iterator[Picture]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for file in files:
        row = 0
        with pq.ParquetFile(file) as opened:
            for batch in opened.iter_batches(batch_size=_BATCH, columns=[column]):
                values, paths = batch.column(0), None
                if pa.types.is_struct(values.type) and values.type.get_field_index("bytes") >= 0:
                    paths = values.field("path") if values.type.get_field_index("path") >= 0 else None
                    values = values.field("bytes")
                if not (pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type)):
                    raise DataError(
                        f"column {column!r} of {file} holds {values.type}, no images: see data.image_column"
                    )
                for i, encoded in enumerate(values.to_pylist()):
                    path = paths[i].as_py() if encoded is None and paths is not None else None
                    yield f"{file.name} row {row}", not_embedded(path) if path else encoded
                    row += 1
