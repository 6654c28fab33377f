"""Decoded pictures on disk: one memory-mapped .npy file for each data set, in the user's cache."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DataError
from ..files import cache_folder
from ._pixels import EMBED, LARGEST_INFERRED_SIZE, Picture, Pixels, common_size, decode_all
from ._room import cache_limit, make_room
from .base import Progress

FORMAT = 1  # raised whenever the same options and files would give other pixels
_HEADER = 128  # bytes before the pixels in a .npy file


@dataclass(frozen=True)
class Pictures:
    """What came of the pictures of a data set.

    Args:
        x: Shape (N, C, size, size), uint8, of those that could be read.
        broken: The numbers of those that could not, counted from 0 over all.
        skipped: What was wrong with each of these, one line each.
    """

    x: Tensor
    broken: tuple[int, ...]
    skipped: tuple[str, ...]

    def kept(self) -> list[int]:
        """The numbers of the pictures in `x`, counted from 0 over all."""
        broken = set(self.broken)
        return [i for i in range(len(self.x) + len(broken)) if i not in broken]


def cache_key(files: Iterable[Path], *options: object) -> str:
    """A name for what is made of these files under these options: another one when a file's size or time changes.

    Args:
        files: The source files.
        options: All else that the pixels depend on.

    Returns:
        64 hexadecimal digits.

    Raises:
        DataError: One of the files is gone.
    """
    digest = hashlib.sha256(repr((FORMAT, PIL.__version__, options)).encode())
    for file in files:
        try:
            status = file.stat()
        except OSError as error:
            raise DataError(f"{file} cannot be read: {error.strerror}") from None
        digest.update(repr((os.path.abspath(file), status.st_size, status.st_mtime_ns)).encode())
    return digest.hexdigest()


class _PixelFile:
    """A .npy file that grows by one picture at a time: grey until the first in colour when channels is 0."""

    def __init__(self, file: BinaryIO, size: int, channels: int) -> None:
        self.file = file
        self.size = size
        self.channels = channels or 1
        self.count = 0
        self._write_header()

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.count, self.channels, self.size, self.size

    def _write_header(self) -> None:
        text = repr({"descr": "|u1", "fortran_order": False, "shape": self.shape}).ljust(_HEADER - 11) + "\n"
        self.file.seek(0)
        # Of one length whatever the count, unlike numpy's own, so that it can be written again at the end.
        self.file.write(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode())

    def append(self, pixels: Pixels) -> None:
        if len(pixels) > self.channels:
            self._colour(len(pixels))
        self.file.write(np.broadcast_to(pixels, self.shape[1:]).tobytes())
        self.count += 1

    def _colour(self, channels: int) -> None:
        self.file.seek(_HEADER)
        grey = np.frombuffer(self.file.read(), np.uint8).reshape(self.count, 1, self.size, self.size)
        self.channels, self.count = channels, 0
        self._write_header()
        for pixels in grey:
            self.append(pixels)

    def finish(self) -> None:
        self._write_header()
        self.file.flush()


@dataclass(frozen=True)
class Album:
    """Encoded pictures, and what is to be made of them.

    Args:
        pictures: Gives all, in order.
        sample: Gives some, from which the size is inferred.
        total: How many there are.
        size: Side in pixels; 0 to infer it.
        channels: 1, 3 or 4; 0 to infer it: 1 if every pixel of every picture is grey, else 3.
    """

    pictures: Callable[[], Iterable[Picture]]
    sample: Callable[[], Iterable[Picture]]
    total: int
    size: int
    channels: int


def load_pictures(album: Album, key: str | None, progress: Progress | None) -> Pictures:
    """The pixels of an album: from the cache when they are there, else decoded, and put there if that can be done.

    Args:
        album: The encoded pictures.
        key: The name in the cache, or None to do without.
        progress: Told what is being done, how many are done and how many there are.

    Raises:
        DataError: None of the pictures can be read.
    """
    if key is not None and (found := _read(key)) is not None:
        return found
    side = album.size or common_size(album.sample()) or LARGEST_INFERRED_SIZE
    album = replace(album, size=side)
    if key is not None:
        try:
            return _decode_to_cache(album, key, progress)
        except (OSError, RuntimeError):  # a full or read-only disk, or no home directory
            pass
    memory = io.BytesIO()
    out = _PixelFile(memory, side, album.channels)
    broken, skipped = _decode_into(out, album, progress)
    pixels = np.frombuffer(memory.getbuffer(), np.uint8, offset=_HEADER).reshape(out.shape)
    return Pictures(torch.from_numpy(pixels), tuple(broken), tuple(skipped))


def _decode_into(out: _PixelFile, album: Album, progress: Progress | None) -> tuple[list[int], list[str]]:
    broken: list[int] = []
    skipped: list[str] = []
    for i, result in enumerate(decode_all(album.pictures(), album.size, album.channels)):
        if isinstance(result, str):
            broken.append(i)
            skipped.append(result)
        else:
            out.append(result)
        if progress is not None and (i % 64 == 63 or i == album.total - 1):
            progress("decoding images", i + 1, album.total)
    if out.count == 0:
        raise DataError(none_can_be_read(skipped))
    out.finish()
    return broken, skipped


def none_can_be_read(skipped: Sequence[str]) -> str:
    """The message where no picture can be read, from a line about each."""
    known = skipped[0].endswith(EMBED)  # the line says what to do
    if len(skipped) == 1:
        return f"the only image cannot be read, {skipped[0]}" + ("" if known else ": save it as PNG or JPEG")
    told = f"none of the {len(skipped)} images can be read, e.g. {skipped[0]}"
    return told + ("" if known else ": save them as PNG or JPEG")


def _decode_to_cache(album: Album, key: str, progress: Progress | None) -> Pictures:
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="making-") as making:
        pixels, notes = Path(making, "pixels.npy"), Path(making, "notes.json")
        with pixels.open("w+b") as file:
            broken, skipped = _decode_into(_PixelFile(file, album.size, album.channels), album, progress)
        notes.write_text(json.dumps({"broken": broken, "skipped": skipped}), encoding="utf-8")
        os.replace(notes, folder / f"{key}.json")
        os.replace(pixels, folder / f"{key}.npy")
    make_room(folder, cache_limit(), keep=folder / f"{key}.npy")
    found = _read(key)
    if found is None:
        raise OSError(f"{folder} does not keep what is written there")
    return found


def _read(key: str) -> Pictures | None:
    try:
        stored = cache_folder() / key
        os.utime(stored.with_suffix(".npy"))  # it was used: others leave first
        notes = json.loads(stored.with_suffix(".json").read_text(encoding="utf-8"))
        # Mapped copy-on-write: torch wants memory that it may write to, and the file must stay as it is.
        x: NDArray[np.uint8] = np.load(stored.with_suffix(".npy"), mmap_mode="c", allow_pickle=False)
        return Pictures(torch.from_numpy(np.asarray(x)), tuple(notes["broken"]), tuple(notes["skipped"]))
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, TypeError):  # not there, or not whole
        return None
