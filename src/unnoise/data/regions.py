"""What stands where in pictures: boxes around things, and maps that give every pixel a class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import DataError

NOTHING = 255
"""What a map says of a pixel of which nothing is known."""
NO_BOX = -1
"""The class of a place among the boxes of a sample that holds none."""


@dataclass(frozen=True)
class Regions:
    """Boxes and maps of N samples; either may be missing.

    Args:
        boxes: Shape (N, most, 5), float32: class, then left, top, right and bottom as shares of the picture's sides; the class is
            `NO_BOX` where a sample has fewer than the most.
        maps: Shape (N, H, W), uint8: the class of every pixel, or `NOTHING`.
        box_names: The names of the boxes' classes, in the order of their numbers.
        map_names: The same of the maps.
    """

    boxes: Tensor | None = None
    maps: Tensor | None = None
    box_names: tuple[str, ...] = ()
    map_names: tuple[str, ...] = ()

    def take(self, indices: Tensor) -> Regions:
        """Those of the samples at `indices`, of shape (n,)."""
        boxes, maps = (None if each is None else each[indices] for each in (self.boxes, self.maps))
        return replace(self, boxes=boxes, maps=maps)

    def tensors(self) -> dict[str, Tensor]:
        """Boxes and maps, where there are some, by name."""
        found = {"boxes": self.boxes, "maps": self.maps}
        return {name: value for name, value in found.items() if value is not None}

    def mirrored(self, which: Tensor) -> Regions:
        """With left and right changed for some samples.

        Args:
            which: Shape (N,), bool.
        """
        boxes, maps = self.boxes, self.maps
        if boxes is not None:
            other = torch.stack([boxes[..., 0], 1 - boxes[..., 3], boxes[..., 2], 1 - boxes[..., 1], boxes[..., 4]], -1)
            boxes = torch.where(which[:, None, None], other, boxes)
        if maps is not None:
            maps = torch.where(which[:, None, None], maps.flip(-1), maps)
        return replace(self, boxes=boxes, maps=maps)


def boxes_of(found: Sequence[Sequence[tuple[str, float, float, float, float]]]) -> tuple[Tensor, tuple[str, ...]]:
    """The boxes of samples as one tensor, and the names of their classes by the alphabet.

    Args:
        found: Of each sample its boxes: name, left, top, right, bottom, the latter as shares of the sides.

    Returns:
        As `Regions` has them: what reaches beyond the picture is cut, and a box of which nothing is left is dropped.
    """
    names = sorted({box[0] for boxes in found for box in boxes})
    number = {name: i for i, name in enumerate(names)}
    rows: list[list[tuple[float, ...]]] = []
    for boxes in found:
        inside = [(float(number[name]), *(min(max(at, 0.0), 1.0) for at in ends)) for name, *ends in boxes]
        rows.append([box for box in inside if box[1] < box[3] and box[2] < box[4]])
    made = torch.full((len(rows), max([1, *map(len, rows)]), 5), float(NO_BOX))
    for row, kept in zip(made, rows, strict=True):
        if kept:
            row[: len(kept)] = torch.tensor(kept)
    return made, tuple(names)


def joined(parts: Sequence[Regions]) -> Regions | None:
    """Regions of the same classes, one after another, with as many places for boxes each; None for none."""
    if not parts:
        return None
    boxes, maps = [part.boxes for part in parts], [part.maps for part in parts]
    return replace(parts[0], boxes=_together(boxes), maps=_together(maps))


def _together(parts: Sequence[Tensor | None]) -> Tensor | None:
    there = [part for part in parts if part is not None]
    return torch.cat(there) if there else None


def renumbered(numbers: Tensor, names: Sequence[str], known: Sequence[str], missing: int) -> Tensor:
    """Class numbers by other names.

    Args:
        numbers: Any shape; `missing` where there is no class.
        names: Of the classes that they are numbers of.
        known: The names by which they are to be counted.
        missing: What stands where there is no class.

    Raises:
        DataError: A class of the data is none of the known.
    """
    if tuple(names) == tuple(known):
        return numbers
    unknown = [name for name in names if name not in known]
    if unknown:
        raise DataError(f"{unknown[0]!r} is none of the classes that the model knows ({', '.join(known)})")
    table = torch.tensor([known.index(name) for name in names]).to(numbers)
    there = numbers != missing
    return torch.where(there, table[torch.where(there, numbers, 0).long()], numbers)
