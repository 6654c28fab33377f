"""Boxes around things in pictures, as tables of objects give them, brought to the squares that pictures become."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from ..errors import DataError
from ._captions import METADATA

Found = list[tuple[str, float, float, float, float]]
OBJECTS = "objects"
"""What the boxes of a picture stand under, in a table or a metadata.jsonl, as `datasets` names them."""
_NAMES = ("categories", "category", "labels", "label")
_EXPECTED = '{"bbox": [[x, y, width, height], ...], "categories": [...]} in pixels'
_TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height
_ORIENTATION = 0x0112


def boxes_beside(root: Path, names: Sequence[str], others: Sequence[str]) -> list[Found] | None:
    """The boxes of pictures that a metadata.jsonl beside them tells; None where it tells of none.

    Args:
        root: The folder.
        names: The N pictures, relative to it.
        others: The files in it that are no pictures, relative to it.

    Raises:
        DataError: Objects cannot be read, or are those of a picture that cannot.
    """
    if METADATA not in others:
        return None
    told: dict[str, tuple[str, Any]] = {}
    for number, line in enumerate((root / METADATA).read_text(encoding="utf-8-sig").splitlines(), start=1):
        record = json.loads(line) if line.strip() else {}
        if OBJECTS in record:
            told[PurePosixPath(str(record["file_name"])).as_posix()] = (
                f"{root / METADATA}, line {number}",
                record[OBJECTS],
            )
    if not told:
        return None
    return [read_objects(*told[name], size_of(root / name)) if name in told else [] for name in names]


def size_of(source: bytes | Path) -> tuple[int, int]:
    """Width and height of a picture as it is shown, in pixels.

    Raises:
        DataError: It cannot be read.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            turned = image.getexif().get(_ORIENTATION) in _TURNED
            return (image.height, image.width) if turned else image.size
    except (OSError, ValueError) as error:
        raise DataError(f"the size of a picture with boxes cannot be read: {error}") from None


def read_objects(where: str, objects: Any, size: tuple[int, int]) -> Found:
    """The boxes of one picture in the square that it becomes: its middle, as large as its smaller side.

    Args:
        where: For messages.
        objects: Boxes as left, top, width and height in pixels, and their classes; None for no box.
        size: Width and height of the picture.

    Returns:
        Of each its class, and left, top, right and bottom as shares of the square, which may reach beyond [0, 1].

    Raises:
        DataError: They are something else.
    """
    if objects is None:
        return []
    try:
        classes = next(objects[name] for name in _NAMES if name in objects)
        pairs = list(zip(classes, objects["bbox"], strict=True))
        side, found = min(size), []
        left, top = ((each - side) / 2 for each in size)
        for name, (x, y, width, height) in pairs:
            ends = (x - left, y - top, x + width - left, y + height - top)
            found.append((str(name), *(float(each) / side for each in ends)))
    except (StopIteration, KeyError, TypeError, ValueError):
        given = json.dumps(objects, default=str) if isinstance(objects, Mapping) else repr(objects)
        raise DataError(f"{where}: expected objects as {_EXPECTED}, got {given[:80]}") from None
    return found  # type: ignore[return-value]
