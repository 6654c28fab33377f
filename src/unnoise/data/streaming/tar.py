"""Tar shards in the convention of WebDataset: files of one sample have one name and stand one after the other.

shard-000000.tar
├── cat/0001.jpg    the picture, in any format that Pillow reads; or cat/0001.npy, an array
├── cat/0001.cls    its label: a whole number or a word
├── cat/0001.json   or label and caption together: {"label": ..., "caption": ...}
├── cat/0001.txt    its caption
└── cat/0002.jpg    the next sample
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import IO, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from .._pixels import picture_suffixes
from .formats import OpenShard, Record, Scan, ShardFormat
from .store import Shard, Store

LABEL_KEYS = ("label", "class", "cls")
CAPTION_KEYS = ("caption", "text", "txt")
_NO_CAPTION, _TEXT, _JSON = 0, 1, 2


@dataclass
class _Sample:
    key: str
    value: tuple[int, int] = (-1, 0)  # where in the shard it begins, and its length
    array: bool = False
    caption: tuple[int, int, int] = (0, 0, _NO_CAPTION)
    label: int | str | None = None


@dataclass(frozen=True)
class TarFormat(ShardFormat):
    """Tar files, not compressed. Members that are no part of a sample are left alone."""

    suffixes: ClassVar[tuple[str, ...]] = (".tar",)
    scan_reads_all: ClassVar[bool] = True

    labels: bool = field(default=True)

    def scan(self, store: Store, shard: Shard) -> Scan:
        """See `ShardFormat.scan`."""
        with store.open(shard) as file:
            samples = self._samples(file, shard)
        samples = [sample for sample in samples if sample.value[0] >= 0]
        if not samples:
            raise DataError(f"{shard.place} holds no samples: expected members such as 0001.jpg and 0001.cls")
        places = {
            "value": np.array([sample.value for sample in samples], dtype=np.int64),
            "array": np.array([sample.array for sample in samples]),
            "caption": np.array([sample.caption for sample in samples], dtype=np.int64),
            "key": np.array([sample.key for sample in samples]),
        }
        without = [sample.key for sample in samples if sample.caption[2] == _NO_CAPTION]
        captioned, first = len(samples) - len(without), next(iter(without), "")
        return Scan(len(samples), places, self._labels(samples, shard), captioned=captioned, uncaptioned=first)

    def _samples(self, file: IO[bytes], shard: Shard) -> list[_Sample]:
        samples: list[_Sample] = []
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    if not member.isreg():
                        continue
                    if member.offset_data + member.size > shard.size:
                        raise tarfile.ReadError("unexpected end of data")
                    folder, slash, name = member.name.rpartition("/")
                    base, _, suffix = name.partition(".")
                    if not base:  # a hidden file
                        continue
                    key = folder + slash + base
                    if not samples or samples[-1].key != key:
                        samples.append(_Sample(key))
                    self._add(samples[-1], suffix.lower(), member.offset_data, member.size, file, shard)
        except tarfile.TarError as error:
            what = "it is compressed" if _compressed(file) else str(error)
            raise DataError(
                f"{shard.place} cannot be read as tar: {what}; give a whole tar file, not compressed"
            ) from None
        return samples

    def _add(self, sample: _Sample, suffix: str, offset: int, size: int, file: IO[bytes], shard: Shard) -> None:
        """Takes note of one file of a sample."""
        if suffix == "npy" or f".{suffix}" in picture_suffixes():
            if sample.value[0] < 0:
                sample.value, sample.array = (offset, size), suffix == "npy"
        elif suffix == "txt":
            sample.caption = offset, size, _TEXT
        elif suffix == "cls" and self.labels:
            text = _read(file, offset, size).decode("utf-8", "replace").strip()
            sample.label = int(text) if _whole(text) else text
        elif suffix == "json":
            about = _json(_read(file, offset, size), f"{shard.name}, {sample.key}.json")
            if _first(about, CAPTION_KEYS) is not None and sample.caption[2] == _NO_CAPTION:
                sample.caption = offset, size, _JSON
            label = _first(about, LABEL_KEYS) if self.labels else None
            if label is not None and sample.label is None:
                sample.label = label if isinstance(label, int) else str(label)

    def _labels(self, samples: Sequence[_Sample], shard: Shard) -> NDArray[Any] | None:
        labels = [sample.label for sample in samples if sample.label is not None]
        if not labels:
            return None
        if len(labels) < len(samples):
            first = next(sample.key for sample in samples if sample.label is None)
            raise DataError(
                f"labels missing for {len(samples) - len(labels)} of {len(samples)} samples of {shard.name}, e.g. {first}: "
                'add them, or set data.label_column="" to go without labels'
            )
        return np.array(labels if all(isinstance(label, int) for label in labels) else [str(each) for each in labels])

    def open(self, store: Store, shard: Shard, places: dict[str, NDArray[Any]], span: int) -> OpenShard:
        """See `ShardFormat.open`."""
        return _OpenTar(store.open(shard), shard, places)


class _OpenTar(OpenShard):
    def __init__(self, file: IO[bytes], shard: Shard, places: dict[str, NDArray[Any]]) -> None:
        self.file, self.shard, self.places = file, shard, places

    def records(self, rows: Sequence[int]) -> list[Record]:
        """See `OpenShard.records`; read from front to back."""
        found = {row: self._record(row) for row in sorted(set(rows))}
        return [found[row] for row in rows]

    def _record(self, row: int) -> Record:
        name = f"{self.shard.name} sample {row} ({self.places['key'][row]})"
        try:
            encoded = _read(self.file, *self.places["value"][row].tolist())
            offset, size, kind = self.places["caption"][row].tolist()
            text = _read(self.file, offset, size) if kind != _NO_CAPTION else b""
        except (OSError, EOFError) as error:
            raise DataError(f"{name} cannot be read: {error}") from None
        caption = _caption(text, kind, name)
        return Record(name, _array(encoded) if self.places["array"][row] else encoded, caption)

    def close(self) -> None:
        """See `OpenShard.close`."""
        self.file.close()


def _caption(text: bytes, kind: int, name: str) -> str | None:
    if kind == _NO_CAPTION:
        return None
    return text.decode("utf-8", "replace").strip() if kind == _TEXT else str(_first(_json(text, name), CAPTION_KEYS))


def _read(file: IO[bytes], offset: int, size: int) -> bytes:
    file.seek(offset)
    content = file.read(size)
    if len(content) < size:
        raise EOFError("the shard ends before the sample does")
    return content


def _array(encoded: bytes) -> NDArray[Any] | None:
    try:
        return np.asarray(np.load(io.BytesIO(encoded), allow_pickle=False))
    except (ValueError, EOFError):
        return None


def _json(text: bytes, name: str) -> dict[str, Any]:
    try:
        about = json.loads(text)
    except ValueError:
        about = None
    if not isinstance(about, dict):
        raise DataError(f'{name} cannot be read: expected JSON such as {{"label": 3, "caption": "a cat"}}')
    return about


def _first(about: dict[str, Any], keys: Sequence[str]) -> Any:
    return next((about[key] for key in keys if about.get(key) is not None), None)


def _whole(text: str) -> bool:
    return text.removeprefix("-").isdecimal()


def _compressed(file: IO[bytes]) -> bool:
    file.seek(0)
    return file.read(6).startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"))
