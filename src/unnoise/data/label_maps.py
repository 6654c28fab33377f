"""Label maps: pictures whose every pixel is the number of a class."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from ..errors import DataError
from .regions import NOTHING

NAMES = "names.txt"
"""What the classes are called, one a line, in the order of their numbers."""


def decode_map(source: bytes | Path, where: str, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """A label map as class numbers, shape (H, W).

    Args:
        source: The encoded picture, or the file that holds it.
        where: For messages.
        size: Height and width that it is brought to: its middle, by the nearest pixel; None leaves it as it is.

    Raises:
        DataError: It cannot be read, or has more than one number a pixel.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as opened:
            image = ImageOps.exif_transpose(opened)
    except FileNotFoundError:
        raise DataError(f"there is no label map {where}: expected a grey or a palette PNG there") from None
    except (OSError, ValueError) as error:
        raise DataError(f"the label map {where} cannot be read: {error}") from None
    if image.mode not in ("L", "P", "1"):
        raise DataError(
            f"{where} is no label map: expected one class number a pixel (a grey or a palette PNG), got mode {image.mode}"
        )
    image = image.convert("L") if image.mode == "1" else image
    if size is not None and image.size != size[::-1]:
        image = ImageOps.fit(image, size[::-1], Image.Resampling.NEAREST)
    return np.asarray(image, dtype=np.uint8)


def maps_beside(root: Path, names: Sequence[str], size: tuple[int, int]) -> tuple[Tensor, tuple[str, ...]]:
    """The label maps of pictures, which stand under the same names in another folder.

    Args:
        root: That folder; `names.txt` in it may say what the classes are called.
        names: The N pictures, relative to their own.
        size: Height and width that they are brought to.

    Returns:
        Shape (N, *size), uint8, and the names of the classes.

    Raises:
        DataError: One is missing, or cannot be read.
    """
    if not root.is_dir():
        raise DataError(
            f"there is no folder {root}: data.maps is where the label maps stand, each with its picture's name"
        )
    files = [root / PurePosixPath(name).with_suffix(".png") for name in names]
    found = [decode_map(file, str(file), size) for file in files]
    listed = root / NAMES
    called = listed.read_text(encoding="utf-8-sig").splitlines() if listed.is_file() else []
    return numbered(found, tuple(line.strip() for line in called if line.strip()), str(root))


def numbered(found: Sequence[NDArray[np.uint8]], called: tuple[str, ...], where: str) -> tuple[Tensor, tuple[str, ...]]:
    """Label maps as one tensor, and the names of their classes: those given, or else their numbers.

    Raises:
        DataError: A pixel has a number without a name.
    """
    maps = torch.from_numpy(np.stack(found))
    known = maps[maps != NOTHING]
    most = int(known.max()) + 1 if known.numel() else 1
    if called and most > len(called):
        raise DataError(f"{where}: a pixel of a label map is {most - 1}, and {NAMES} names {len(called)} classes")
    return maps, called or tuple(str(i) for i in range(most))
