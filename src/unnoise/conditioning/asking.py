"""Boxes and label maps as a person asks for them: texts, which the recipe of a file can hold, and what a network sees of them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ..data.label_maps import decode_map
from ..data.regions import NO_BOX, NOTHING, Regions
from ..errors import BadOption, nearest
from .regions import region_network

_PREFIX = "data:image/png;base64,"
_EXPECTED = (
    "expected boxes such as 'cat 0.1 0.2 0.5 0.6; dog 0.5 0.1 0.9 0.9': name, left, top, right, bottom in [0, 1]"
)
Box = tuple[str, float, float, float, float]


def boxes_text(boxes: Any) -> str:
    """Boxes as one text: as it is, or made of (name, left, top, right, bottom) of each.

    Raises:
        BadOption: They are something else.
    """
    if isinstance(boxes, str):
        return boxes
    try:
        rows = [(str(name), [float(end) for end in ends]) for name, *ends in boxes]
        if any(len(ends) != 4 for _, ends in rows):
            raise ValueError
    except (TypeError, ValueError):
        raise BadOption(f"boxes: {_EXPECTED}, got {boxes!r}") from None
    return "; ".join(" ".join([name, *(f"{end:g}" for end in ends)]) for name, ends in rows)


def read_boxes(text: str, known: Sequence[str]) -> list[Box]:
    """The boxes of a text.

    Args:
        text: As `boxes_text` makes it.
        known: The classes that the model knows.

    Raises:
        BadOption: A box has no name that is known, or no four numbers in [0, 1] in their order.
    """
    found: list[Box] = []
    for part in filter(None, (each.strip() for each in text.split(";"))):
        words = part.replace(",", " ").split()
        name = " ".join(words[:-4])
        try:
            left, top, right, bottom = (float(word) for word in words[-4:])
        except ValueError:
            raise BadOption(f"boxes: {_EXPECTED}, got {part!r}") from None
        if name not in known:
            raise BadOption(f"boxes: the model knows no {name!r}{nearest(name, known)}")
        if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
            raise BadOption(f"boxes: {_EXPECTED}, with left below right and top below bottom, got {part!r}")
        found.append((name, left, top, right, bottom))
    return found


def map_text(found: Any) -> str:
    """A label map as a text that holds it whole.

    Args:
        found: A file, a picture, an array of class numbers of shape (H, W), or such a text.

    Raises:
        BadOption: It is something else.
        DataError: The file cannot be read.
    """
    if isinstance(found, str) and found.startswith(_PREFIX):
        return found
    if isinstance(found, (str, Path)):
        numbers = decode_map(Path(found).expanduser(), str(found))
    else:
        numbers = np.asarray(found)
        whole = numbers.ndim == 2 and numbers.size > 0 and numbers.dtype.kind in ("b", "u", "i")
        if not whole or numbers.min() < 0 or numbers.max() > NOTHING:
            raise BadOption(
                f"map: expected class numbers of shape (H, W) in [0, {NOTHING}], got {numbers.dtype} {numbers.shape}"
            )
    buffer = io.BytesIO()
    Image.fromarray(numbers.astype(np.uint8)).save(buffer, "PNG")
    return _PREFIX + base64.b64encode(buffer.getvalue()).decode()


def asked_planes(
    network: nn.Module | None, boxes: Sequence[str | None], maps: Sequence[str | None], shape: Sequence[int]
) -> Tensor | None:
    """What a network sees of the boxes and maps that n samples are asked for; None where none is.

    Args:
        network: Of the model.
        boxes: Of each sample, as text; None asks for none in particular.
        maps: The same.
        shape: Of a sample of the data, (C, H, W).

    Raises:
        BadOption: The model learned none, or knows no such class.
    """
    if all(each is None for each in (*boxes, *maps)):
        return None
    found = region_network(network)
    for name, given in (("boxes", boxes), ("map", maps)):
        if any(each is not None for each in given) and (found is None or getattr(found.asks, name) is None):
            raise BadOption(
                f"{name}: this model was trained without; train one with conditioning.{name}, or leave it out"
            )
    assert found is not None
    asks, regions = found.asks, Regions(box_names=found.asks.boxes or (), map_names=found.asks.map or ())
    if asks.boxes is not None:
        rows = [read_boxes(text or "", asks.boxes) for text in boxes]
        table = torch.full((len(rows), max(1, *map(len, rows)), 5), float(NO_BOX))
        for row, each in zip(table, rows, strict=True):
            for i, (name, *ends) in enumerate(each):
                row[i] = torch.tensor((asks.boxes.index(name), *ends))
        regions = Regions(table, None, regions.box_names, regions.map_names)
    if asks.map is not None:
        numbers = torch.stack([_numbers(text, asks.map, (shape[-2], shape[-1])) for text in maps])
        regions = Regions(regions.boxes, numbers, regions.box_names, regions.map_names)
    none = [torch.tensor([each is None for each in given]) for given in (boxes, maps)]
    return asks.without(found.encode(regions), *none)


def _numbers(text: str | None, names: Sequence[str], size: tuple[int, int]) -> Tensor:
    """The class numbers of a map of some size; nothing everywhere where there is no text."""
    if text is None:
        return torch.full(size, NOTHING, dtype=torch.uint8)
    numbers = decode_map(base64.b64decode(text.removeprefix(_PREFIX)), "that is asked for", size)
    wrong = numbers[(numbers >= len(names)) & (numbers != NOTHING)]
    if wrong.size:
        raise BadOption(
            f"map: a pixel is {int(wrong[0])}, and the model knows {len(names)} classes: {', '.join(names)}"
        )
    return torch.from_numpy(numbers.copy())
