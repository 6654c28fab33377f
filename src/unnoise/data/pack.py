"""A folder of pictures packed into shards: a few large files instead of many small ones, mixed once and for all."""

from __future__ import annotations

import io
import json
import os
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Literal

from ..errors import BadOption, DataError
from ..randomness import permutations
from ._cache import none_can_be_read
from ._captions import captions_of, without
from ._labels import number_labels
from ._pixels import decode_all
from .base import Progress
from .folder import find_pictures, folder_labels

_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9}
_ROWS = 256  # of a row group
_LOOK = 8  # pixels a side: enough to see that a picture can be read
Kind = Literal["tar", "parquet"]


@dataclass(frozen=True)
class _Picture:
    suffix: str
    encoded: bytes
    label: str | None
    caption: str | None


def pack(
    folder: str | Path,
    out: str | Path,
    size: int = 256 * 10**6,
    kind: Kind = "tar",
    labels: bool | Literal["auto"] = "auto",
    seed: int = 0,
    progress: Progress | None = None,
    note: Callable[[str], None] = lambda line: None,
) -> list[Path]:
    """Packs the pictures in a folder, with their labels and captions, as `FolderDataset` finds them.

    Their bytes stay as they are; captions that only some of them have are packed, too. They are shuffled, so that pictures of one
    label do not lie in one shard. Broken pictures are left out and named, as a shard no longer knows the names of files.

    Args:
        folder: Of the pictures.
        out: The folder for the shards; made if missing.
        size: Bytes of a shard, about.
        kind: "tar" in the convention of WebDataset, or "parquet" in that of Hugging Face.
        labels: Whether folders are labels; see `FolderDataset`.
        seed: Of the order; the same folder and seed give the same shards.
        progress: Told how many pictures are packed.
        note: Told what a person should know of the data, a line at a time.

    Returns:
        The shards.

    Raises:
        DataError: There are no pictures, none can be read, or there are shards in `out` already.
        OSError: The disk is full, or may not be written to; the shards that are whole stay.
    """
    root, place = Path(folder).expanduser(), Path(out).expanduser()
    names, others = find_pictures(root)
    captions = captions_of(root, names, others)
    for missing in without(names, captions):
        note(f"captions: {missing}: training uses captions where every picture has one, in a .txt file of its name")
    label_names = folder_labels(names, labels)
    place.mkdir(parents=True, exist_ok=True)
    if there := next(place.glob(f"*.{kind}"), None):
        raise DataError(f"{place} holds shards already, such as {there.name}: pack into another folder")
    order = permutations(seed, len(names), 0, 1)[0].tolist()
    packed = (
        _Tars(place, size) if kind == "tar" else _Tables(place, size, sorted(set(label_names or ())), any(captions))
    )
    looked_at = decode_all(((names[i], root / names[i]) for i in order), _LOOK, 0)
    broken: list[str] = []
    try:
        for done, (i, found) in enumerate(zip(order, looked_at, strict=True)):
            if isinstance(found, str):
                broken.append(found)
            else:
                label = label_names[i] if label_names else None
                encoded = _read(root / names[i])
                packed.add(_Picture(PurePath(names[i]).suffix.lower(), encoded, label or None, captions[i]))
            if progress is not None and (done % 64 == 63 or done == len(order) - 1):
                progress("packing images", done + 1, len(order))
        packed.finish()
    finally:
        packed.discard()
    if not packed.count:
        raise DataError(none_can_be_read(sorted(broken)))
    for line in sorted(broken):
        note(f"skipped {line}")
    if broken:
        note(f"{packed.count:,} of {len(names):,} images are packed, those that can be read")
    return packed.made


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None


def bytes_of(text: str) -> int:
    """A number of bytes from a text such as "256MB" or "1.5 GB".

    Raises:
        BadOption: It is none.
    """
    number, unit = text.strip()[:-2], text.strip()[-2:].upper()
    with suppress(KeyError, ValueError):
        if (found := float(number) * _UNITS[unit]) >= 1:
            return int(found)
    raise BadOption(f"size: expected a size such as 256MB or 1GB, got {text!r}")


class _Shards(ABC):
    """Shards that are filled one after the other, each under another name until it is whole."""

    suffix: str

    def __init__(self, place: Path, size: int) -> None:
        self.place, self.size, self.made, self.count = place, size, list[Path](), 0
        self._filled = 0

    @property
    def partial(self) -> Path:
        """Where the shard stands until it is whole."""
        return self.place / f".{len(self.made):06d}{self.suffix}.{os.getpid()}.partial"

    def add(self, picture: _Picture) -> None:
        """Adds a picture; begins another shard before it where it would not fit."""
        length = self.length(picture)
        if self._filled and self._filled + length > self.size:
            self.finish()
        self.append(picture)
        self._filled += length
        self.count += 1

    def finish(self) -> None:
        """Ends the shard that is being filled."""
        if self._filled:
            self.end()
            path = self.place / f"{len(self.made):06d}{self.suffix}"
            os.replace(self.partial, path)
            self.made.append(path)
            self._filled = 0

    def discard(self) -> None:
        """Removes what is not whole."""
        self.partial.unlink(missing_ok=True)

    @abstractmethod
    def length(self, picture: _Picture) -> int:
        """The bytes that a picture takes in a shard, about."""

    @abstractmethod
    def append(self, picture: _Picture) -> None:
        """Writes a picture into the shard that is being filled, which may have to be begun."""

    @abstractmethod
    def end(self) -> None:
        """Closes the file."""


class _Tars(_Shards):
    suffix = ".tar"
    _tar: tarfile.TarFile | None = None

    def length(self, picture: _Picture) -> int:
        block = tarfile.BLOCKSIZE
        return sum(block - len(content) // -block * block for _, content in self._files(picture))

    def append(self, picture: _Picture) -> None:
        if self._tar is None:
            self._tar = tarfile.open(self.partial, "w", format=tarfile.USTAR_FORMAT)
        key = f"{self.count:08d}"
        for suffix, content in self._files(picture):
            member = tarfile.TarInfo(key + suffix)  # no times and no owners: the same folder gives the same bytes
            member.size = len(content)
            self._tar.addfile(member, io.BytesIO(content))

    def _files(self, picture: _Picture) -> Iterator[tuple[str, bytes]]:
        yield picture.suffix, picture.encoded
        if picture.label is not None:
            yield ".cls", picture.label.encode()
        if picture.caption is not None:
            yield ".txt", picture.caption.encode()

    def end(self) -> None:
        assert self._tar is not None
        self._tar.close()
        self._tar = None

    def discard(self) -> None:
        """See `_Shards.discard`."""
        if self._tar is not None:
            self._tar.close()
        super().discard()


class _Tables(_Shards):
    suffix = ".parquet"

    def __init__(self, place: Path, size: int, label_names: list[str], captioned: bool) -> None:
        super().__init__(place, size)
        self.captioned = captioned
        self.names = number_labels(label_names)[1]
        self._rows: list[_Picture] = []

    def length(self, picture: _Picture) -> int:
        return len(picture.encoded) + len(picture.caption or "") + 16

    def append(self, picture: _Picture) -> None:
        self._rows.append(picture)

    def end(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        images = [{"bytes": row.encoded, "path": None} for row in self._rows]
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        columns = {"image": pa.array(images, kind)}
        features: dict[str, object] = {"image": {"_type": "Image"}}
        if self.names:
            columns["label"] = pa.array([self.names.index(str(row.label)) for row in self._rows], pa.int64())
            features["label"] = {"_type": "ClassLabel", "names": list(self.names)}
        if self.captioned:
            columns["text"] = pa.array([row.caption for row in self._rows], pa.string())
            features["text"] = {"_type": "Value", "dtype": "string"}
        about = {"huggingface": json.dumps({"info": {"features": features}})}
        table = pa.table(columns).replace_schema_metadata(about)
        pq.write_table(table, self.partial, row_group_size=_ROWS, compression="none")  # pictures are compressed
        self._rows.clear()
