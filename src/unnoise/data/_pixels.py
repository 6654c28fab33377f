"""Encoded pictures, made into squares of pixels: opened by Pillow, turned upright, laid on white, cropped, resized."""

from __future__ import annotations

import io
import os
import warnings
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import BadOption

Picture = tuple[str, bytes | Path | str | None]
"""Its name in messages, and the encoded picture, its place, or why it is missing."""

Pixels = NDArray[np.uint8]  # shape (C, size, size)

CHANNELS = (0, 1, 3, 4)
LARGEST_INFERRED_SIZE = 256
MEASURED = 1000  # a size is inferred from so many pictures at most
_CHUNK = 16
_COMMON = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
EMBED = (
    "embed the files (datasets: cast the column to Image(), then push_to_hub() or save_to_disk()), or give their folder"
)
_NOT_PICTURES = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}  # EPS among them: Pillow hands it to another program


@cache
def formats() -> tuple[str, ...]:
    """What Pillow reads here: all but what is no picture, the common ones first."""
    Image.init()
    rest = [name for name in Image.OPEN if name not in _NOT_PICTURES and name not in _COMMON]
    return (*_COMMON, *rest)


def picture_suffixes() -> frozenset[str]:
    """The endings of file names that Pillow reads as pictures, in lower case with their dot."""
    read = set(formats()) | {"MPO"}
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in read)


def check_channels(channels: int) -> None:
    """Refuses a number of channels that no picture has.

    Raises:
        BadOption: It is not 0 (inferred), 1 (grey), 3 (colour) or 4 (colour and transparency).
    """
    if channels not in CHANNELS:
        raise BadOption(f"channels: must be 1 (grey), 3 (colour), 4 (transparency) or 0 (inferred), got {channels}")


def decode(source: bytes | Path, size: int, channels: int) -> Pixels:
    """One picture as pixels; the first frame where there are several.

    Args:
        source: The encoded picture, or the file that holds it.
        size: Side of the square in pixels; the smaller side is resized to it (Lanczos) and the middle is kept.
        channels: 1 grey, 3 colour, 4 colour and transparency; 0 for 1 where every pixel is grey and 3 otherwise.

    Returns:
        Shape (C, size, size), uint8.

    Raises:
        Exception: Whatever Pillow raises for a broken file.
    """
    with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=formats()) as opened:
        return fitted(opened, (size, size), channels)


def fitted(image: Image.Image, size: tuple[int, int], channels: int) -> Pixels:
    """A picture as pixels: turned upright, laid on white, resized so that it covers the size, its middle kept.

    Args:
        image: As Pillow opened it, or made it.
        size: Height and width.
        channels: As `decode` takes it.

    Returns:
        Shape (C, *size), uint8.

    Raises:
        Exception: Whatever Pillow raises for a broken file.
    """
    side = 2 * max(size)
    image.draft(None, (side, side))  # a JPEG much too large is decoded at a fraction of its side
    image = ImageOps.exif_transpose(image)
    image = _opaque(_eight_bit(image)) if channels != 4 else _eight_bit(image).convert("RGBA")
    if image.size != size[::-1]:
        image = ImageOps.fit(image, size[::-1], Image.Resampling.LANCZOS)
    if channels:
        image = image.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels])
    pixels = np.asarray(image)
    if pixels.ndim == 2:
        return pixels[None]
    if channels == 0 and (pixels == pixels[..., :1]).all():
        return pixels[None, ..., 0]
    return np.moveaxis(pixels, -1, 0)


def _eight_bit(image: Image.Image) -> Image.Image:
    """The picture with at most 8 bits a channel; Pillow's own conversion of 16 bits clips instead of scaling."""
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.float64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("32-bit pixels: save it with 8 or 16 bits")
        return Image.fromarray(np.round(values / 257).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("floating-point pixels: save it with 8 or 16 bits")
    return image


def _opaque(image: Image.Image) -> Image.Image:
    """The picture as L or RGB, laid on white where it is transparent."""
    grey = image.mode in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        over = image.convert("RGBA")
        white = Image.new("RGBA", over.size, "white")
        return Image.alpha_composite(white, over).convert("L" if grey else "RGB")
    return image.convert("L" if grey else "RGB")


def why_not(error: Exception) -> str:
    """What is wrong with a picture that could not be decoded, in a few words."""
    if isinstance(error, UnidentifiedImageError):
        return "cannot identify image file"
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return f"too many pixels (at most {Image.MAX_IMAGE_PIXELS:,} are read)"
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


def _decode_chunk(chunk: list[Picture], size: int, channels: int) -> list[Pixels | str]:
    results: list[Pixels | str] = []
    for name, source in chunk:
        try:
            if source is None or isinstance(source, str):
                raise ValueError(source or "there is no image")
            results.append(decode(source, size, channels))
        except Exception as error:  # Pillow raises nearly anything for a broken file, and one must not end the load
            results.append(f"{name}: {why_not(error)}")
    return results


def not_embedded(path: str) -> str:
    """Why a picture of a table is not there of which only the path is."""
    return f"its bytes are not embedded, there is only the path {path}: {EMBED}"


@contextmanager
def bombs_refused() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
        yield


def decode_all(pictures: Iterable[Picture], size: int, channels: int) -> Iterator[Pixels | str]:
    """The pixels of each picture in turn, decoded by several threads; for a broken one a line that says what is wrong.

    Args:
        pictures: Names and encoded pictures; only a few are held at a time.
        size: Side of the squares in pixels.
        channels: As `decode` takes it.

    Yields:
        Pixels, or "name: what is wrong".
    """
    workers = os.cpu_count() or 1
    waiting: deque[Future[list[Pixels | str]]] = deque()
    rest = iter(pictures)
    with bombs_refused(), ThreadPoolExecutor(workers) as pool:
        while chunk := list(islice(rest, _CHUNK)):
            waiting.append(pool.submit(_decode_chunk, chunk, size, channels))
            if len(waiting) > 4 * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def common_size(pictures: Iterable[Picture]) -> int | None:
    """The side to which pictures are best brought, from the headers of up to 1,000 of them.

    Squares of one size up to 256 keep it. Otherwise it is the most common smaller side (the smallest of equally common
    ones), at most 256, and rounded down to a multiple of 8 from 8 on, so that networks can halve it.

    Args:
        pictures: Names and encoded pictures.

    Returns:
        The side in pixels, or None when no picture can be opened.
    """
    sizes: Counter[tuple[int, int]] = Counter()
    with bombs_refused():
        for _, source in islice(pictures, MEASURED):
            try:
                if isinstance(source, (bytes, Path)):
                    stream = io.BytesIO(source) if isinstance(source, bytes) else source
                    with Image.open(stream, formats=formats()) as image:
                        sizes[image.size] += 1
            except Exception:  # a broken file is named when it is decoded
                continue
    if not sizes:
        return None
    sides: Counter[int] = Counter()
    for size, count in sizes.items():
        sides[min(size)] += count
    side = min(sides, key=lambda each: (-sides[each], each))
    if len(sizes) == 1 and sizes.keys() == {(side, side)} and side <= LARGEST_INFERRED_SIZE:
        return side
    side = min(side, LARGEST_INFERRED_SIZE)
    return side - side % 8 if side >= 8 else side
