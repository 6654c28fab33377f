"""Data that is read as it is needed: tar, Parquet and Arrow shards, or folders of pictures, here or at any URL."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..options import option
from ._captions import find_captions
from ._columns import check_range
from ._labels import number_labels
from ._pixels import LARGEST_INFERRED_SIZE, bombs_refused, check_channels, common_size, decode
from ._splits import named_split
from .augmentation import Augmentation
from .base import DataSource, Kind, Progress, Spec, datasets
from .folder import find_pictures, folder_labels
from .streaming.dataset import ShardedDataset
from .streaming.formats import Record, Scan, ShardFormat
from .streaming.index import Entry, keep_entry, make_index
from .streaming.pictures import RUN, PictureFormat
from .streaming.reader import Reader
from .streaming.store import Shard, Store, find_shards, is_url
from .streaming.tables import ArrowFormat, ParquetFormat
from .streaming.tar import TarFormat

Format = Literal["auto", "tar", "parquet", "arrow", "images"]
SUFFIXES = (".tar", ".parquet", ".arrow")
MOST_HELD = 2**32
"""Bytes that are read at once at all places together, at most."""
_PLACES, _A_PLACE = 16, 16  # a size is inferred from so many places, and so many pictures of each
_MOST_OPEN = 256


@datasets.register("shards")
@dataclass(frozen=True)
class ShardsDataset(DataSource):
    """Data of any size, read while it is trained on; an index of it is made once, and kept in the user's cache.

    Tar files in the convention of WebDataset (0001.jpg, 0001.cls, 0001.json, 0001.txt), Parquet and Arrow files in the
    convention of Hugging Face (also what `save_to_disk` writes), or a folder of pictures as `FolderDataset` reads them.
    The order is a function of seed and epoch: shards in a random sequence, read at `mixing` places in turn, and shuffled in
    windows there. Pictures that cannot be read are replaced by their next neighbour in the shard.

    Args:
        path: A file, a pattern or a folder; on this machine or at a URL that fsspec knows.
        format: What it is; "auto" goes by the names of the files.
        size: Side of the square pictures in pixels; 0 infers it from some of them, as `FolderDataset` does.
        channels: 1 grey, 3 colour, 4 colour and transparency; 0 for 1 if some hundred pictures are all grey, else 3.
        image_column: Of tables: encoded pictures. Where there is none, the columns of numbers make points.
        label_column: Of tables: labels. "" leaves labels out, of tar files too.
        text_column: Of tables: captions.
        labels: Of a folder of pictures: see `FolderDataset`.
        split: Where names begin with train, test or validation: which of these; see `ParquetDataset`.
        mixing: Places of the data that are read in turn; fewer where shards must be read in very large parts.
        window: Samples that are shuffled among each other at each place.
        copies: GB of remote shards that are kept as copies on this machine, the oldest leaving first; 0 reads through.
        flips: Whether training sees every other picture mirrored, by chance.
        shift: By how many pixels at most training moves a picture each way.
    """

    path: str = option(help="shards: a file, a pattern or a folder, here or at a URL")
    format: Format = option("auto", help="tar, parquet, arrow or images; auto goes by the names of the files")
    size: int = option(0, help="side of the square images in pixels; 0 to infer it", low=0, high=4096)
    channels: int = option(0, help="1 grey, 3 colour, 4 with transparency; 0 to infer it", low=0, high=4)
    image_column: str = option("image", help="the column of encoded images, of tables")
    label_column: str = option("label", help="the column of labels, of tables; empty for none")
    text_column: str = option("text", help="the column of captions, of tables; empty for none")
    labels: bool | Literal["auto"] = option("auto", help="whether sub-folders are labels; auto: when there are any")
    split: str = option(
        "auto", help="which of the files: train, test, validation, all; auto is train where names say so"
    )
    mixing: int = option(16, help="places of the data that are read in turn", low=1, high=1024)
    window: int = option(512, help="samples that are shuffled among each other at each place", low=1)
    copies: float = option(20.0, help="GB of remote shards that are kept as copies here; 0 to read through", low=0.0)
    flips: bool = option(False, help="mirror every other picture, by chance, whenever it is trained on")
    shift: int = option(0, help="move pictures by up to so many pixels whenever they are trained on", low=0, high=64)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_channels(self.channels)

    def load(self, progress: Progress | None = None) -> ShardedDataset:
        """The samples, none of which is read yet but some that size and channels are inferred from.

        Raises:
            DataError: There are no shards, one is damaged, or they do not fit together.
            MissingExtra: A package for this kind of URL is not installed.
        """
        store = Store(int(self.copies * 1e9))
        form, entries, notes = self._entries(store, progress)
        counts = np.array([entry.scan.count for entry in entries], dtype=np.int64)
        if not counts.sum():
            raise DataError(f"{self.path} holds no samples: give data that has some")
        labels, class_names = _labels(entries, self.label_column)
        captioned = sum(entry.scan.captioned for entry in entries)
        if 0 < captioned < counts.sum():
            first = next(entry for entry in entries if entry.scan.captioned < entry.scan.count)
            missing = f"{counts.sum() - captioned:,} of {counts.sum():,} samples have none"
            told = f"{missing}, e.g. {first.scan.uncaptioned} of {first.shard.name}"
            notes.append(f"captions: none are used, for {told}")
        lanes = max(1, min(self.mixing, MOST_HELD // max(1, 2 * max(entry.scan.at_once for entry in entries))))
        average = max(1, int(counts.sum()) // len(entries))
        most_open = min(_MOST_OPEN, lanes * (2 + self.window // average))
        kind, shape, all_grey = self._measure(Reader(form, store, entries, (), True, False, self.window, most_open))
        reader = Reader(form, store, entries, shape, kind == "image", all_grey, self.window, most_open)
        return ShardedDataset(
            reader,
            Spec(kind, shape, class_names),
            labels,
            captioned == counts.sum(),
            counts,
            0 if isinstance(form, PictureFormat) else lanes,
            self.window,
            left_out=tuple(dict.fromkeys([*notes, *(note for entry in entries for note in entry.scan.notes)])),
            augmentation=Augmentation(self.flips, self.shift) if kind == "image" else Augmentation(),
        )

    def _entries(self, store: Store, progress: Progress | None) -> tuple[ShardFormat, list[Entry], list[str]]:
        kind = format_of(self.path) if self.format == "auto" else self.format
        if kind == "images":
            return self._pictures()
        columns = self.image_column, self.label_column, self.text_column
        form: ShardFormat = {
            "tar": TarFormat(bool(self.label_column)),
            "parquet": ParquetFormat(*columns),
            "arrow": ArrowFormat(*columns),
        }[kind]
        shards, left_out = named_split(_listed(self.path, form.suffixes), lambda shard: shard.name, self.split)
        return form, make_index(form, store, shards, progress), list(left_out)

    def _pictures(self) -> tuple[ShardFormat, list[Entry], list[str]]:
        """A folder of pictures as runs of files that lie side by side."""
        if is_url(self.path):
            raise DataError(
                f"{self.path} holds no shards: pack pictures with `unnoise pack` first, a request for each is slow"
            )
        root = Path(self.path).expanduser()
        names, others = find_pictures(root)
        captions, notes = find_captions(root, names, others)
        labels = folder_labels(names, self.labels)
        form, entries = PictureFormat(str(root)), []
        for first in range(0, len(names), RUN):
            part = slice(first, first + RUN)
            entries.append(_run(form, root, names[part], captions and captions[part], labels and labels[part]))
        return form, entries, list(notes)

    def _measure(self, reader: Reader) -> tuple[Kind, tuple[int, ...], bool]:
        """The kind and shape of a sample, and whether pictures were found to be grey, from samples all over the data."""
        some = list(some_records(reader))
        arrays = [record.value for record in some if isinstance(record.value, np.ndarray)]
        if arrays:
            return "points" if arrays[0].ndim == 1 else "array", tuple(arrays[0].shape), False
        pictures = [(record.name, record.value) for record in some if isinstance(record.value, bytes)]
        side = self.size or common_size(pictures) or LARGEST_INFERRED_SIZE
        if self.channels:
            return "image", (self.channels, side, side), False
        grey = all(channels == 1 for channels in _channels(encoded for _, encoded in pictures))
        return "image", (1 if grey else 3, side, side), grey


def format_of(path: str) -> Format:
    """What stands at a path, by the names of the files.

    Raises:
        DataError: Nothing that can be read in shards.
    """
    for suffix in SUFFIXES:
        if path.lower().endswith(suffix):
            return suffix[1:]  # type: ignore[return-value]
    if not is_url(path) and not Path(path).expanduser().is_dir():
        raise DataError(
            f"there are no shards at {path}: give .tar, .parquet or .arrow files, a pattern, a folder or a URL"
        )
    try:
        found = Counter(Path(shard.name).suffix for shard in find_shards(path, SUFFIXES))
    except DataError:
        if is_url(path):
            raise
        return "images"
    if len(found) > 1:
        listed = ", ".join(f"{kind} ({count})" for kind, count in found.most_common())
        raise DataError(f"{path} holds shards of several kinds: {listed}: say which with data.format")
    return next(iter(found))[1:]  # type: ignore[return-value]


def _listed(path: str, suffixes: Sequence[str]) -> list[Shard]:
    """The shards at a path; of what `save_to_disk` wrote those that it names, in its order."""
    root = Path(path).expanduser()
    if (root / "dataset_dict.json").is_file():
        splits = ", ".join(json.loads((root / "dataset_dict.json").read_text(encoding="utf-8"))["splits"])
        raise DataError(
            f"{path} holds several data sets ({splits}): give one of them, such as {root / splits.split(', ')[0]}"
        )
    shards = find_shards(path, suffixes)
    if (root / "state.json").is_file() and ".arrow" in suffixes:
        state = json.loads((root / "state.json").read_text(encoding="utf-8"))
        by_name = {shard.name: shard for shard in shards}
        named = [by_name.get(str(file["filename"])) for file in state["_data_files"]]
        if None in named:
            raise DataError(f"{path} is not whole: state.json names files that are missing; save the data set again")
        return [shard for shard in named if shard is not None]
    return shards


def _run(
    form: PictureFormat, root: Path, names: Sequence[str], captions: Sequence[str] | None, labels: Sequence[str] | None
) -> Entry:
    status = [(root / name).stat() for name in names]
    sizes = np.array([each.st_size for each in status], dtype=np.int64)
    about = repr([(name, each.st_size, each.st_mtime_ns) for name, each in zip(names, status, strict=True)])
    mark = hashlib.sha256(about.encode()).hexdigest()
    places: dict[str, NDArray[Any]] = {"name": np.array(names), "size": sizes}
    if captions:
        places["caption"] = np.array(captions)
    shard = Shard(f"{names[0]} to {names[-1]}", str(root), int(sizes.sum()), mark)
    scan = Scan(len(names), places, None if labels is None else np.array(labels), captioned=len(captions or ()))
    return keep_entry(form, shard, scan, mark)


def _labels(entries: Sequence[Entry], column: str) -> tuple[NDArray[np.int32] | None, tuple[str, ...]]:
    """The labels of all samples by number, and the names of the classes."""
    with_labels = [entry for entry in entries if entry.scan.labels is not None]
    if not with_labels:
        return None, ()
    if len(with_labels) < len(entries):
        without = next(entry.shard.name for entry in entries if entry.scan.labels is None)
        raise DataError(f'labels are not in all shards, see {without}: add them, or set data.label_column=""')
    found = [entry.scan.labels for entry in entries if entry.scan.labels is not None]
    names = entries[0].scan.class_names
    if odd := next((entry.shard.name for entry in entries if entry.scan.class_names != names), None):
        raise DataError(f"the classes of the shards differ, see {odd}: give shards of one kind")
    if names and all(each.dtype.kind in "iu" for each in found):
        for entry, labels in zip(entries, found, strict=True):
            check_range(labels, names, column, entry.shard.name)
        return np.concatenate(found).astype(np.int32), names
    if len({each.dtype.kind for each in found}) > 1:
        found = [each.astype(str) for each in found]
    values, which = np.unique(np.concatenate(found), return_inverse=True)
    numbers, names = number_labels(values.tolist())
    return numbers.numpy()[which].astype(np.int32), names


def some_records(reader: Reader) -> Iterator[Record]:
    """Samples from places spread over the shards."""
    filled = [i for i, entry in enumerate(reader.entries) if entry.scan.count]
    for shard in filled[:: -(-len(filled) // _PLACES)]:
        yield from reader.records(shard, range(min(_A_PLACE, reader.entries[shard].scan.count)))
    reader.close()


def _channels(pictures: Iterator[bytes]) -> Iterator[int]:
    """The channels that each picture has by itself; of one that is broken none."""
    with bombs_refused():
        for encoded in pictures:
            try:
                yield len(decode(encoded, 32, 0))
            except Exception:  # it is named when its turn comes
                continue
