"""A single picture, as whoever edits pictures hands it over, brought to the size of the data as pictures of data sets are."""

from __future__ import annotations

import io
import math
from pathlib import Path

from PIL import Image

from ..errors import DataError
from ._pixels import Pixels, fitted, formats, why_not

MOST_PIXELS = 2**26
"""Of a picture that is read; a small file can claim to be a huge picture."""


def one_picture(source: bytes | Path | Image.Image, size: tuple[int, int], channels: int, where: str) -> Pixels:
    """A picture as pixels: upright, on white where it is transparent, its middle in the size (Lanczos).

    Args:
        source: The encoded picture, the file that holds it, or a picture of Pillow's.
        size: Height and width.
        channels: 1 grey, 3 colour, 4 colour and transparency.
        where: How messages begin.

    Returns:
        Shape (channels, *size), uint8.

    Raises:
        DataError: It cannot be read, or is too large.
    """
    if isinstance(source, Image.Image):
        return _fitted(source, size, channels, where)
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=formats()) as opened:
            return _fitted(opened, size, channels, where)
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{where}: there is no such file") from None
    except Exception as error:  # Pillow raises nearly anything for a broken file
        raise DataError(f"{where}: cannot be read as a picture: {why_not(error)}") from None


def _fitted(image: Image.Image, size: tuple[int, int], channels: int, where: str) -> Pixels:
    if math.prod(image.size) > MOST_PIXELS:  # of the header; nothing is unpacked yet
        raise DataError(
            f"{where}: {math.prod(image.size):,} pixels are too many (at most {MOST_PIXELS:,} are read): make it smaller"
        )
    try:
        return fitted(image, size, channels)
    except Exception as error:
        raise DataError(f"{where}: cannot be read as a picture: {why_not(error)}") from None
