"""Placed objects as pixels, many pictures at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from .layout import RADII, SIDE, Placed
from .outlines import OUTLINES, Outline

_AT_ONCE = 256  # pictures that are drawn together, to bound memory


def draw(
    pictures: Sequence[Sequence[Placed]], greys: Sequence[float] | NDArray[np.float64], side: int = SIDE
) -> NDArray[np.uint8]:
    """Pictures of objects on a grey background.

    Args:
        pictures: The objects of each, which do not overlap.
        greys: The background of each, in [0, 255].
        side: Of the pictures in pixels; what was placed in pictures of `SIDE` pixels is enlarged or reduced.

    Returns:
        Shape (N, 3, side, side).
    """
    done = np.empty((len(pictures), 3, side, side), dtype=np.uint8)
    for first in range(0, len(pictures), _AT_ONCE):
        some = slice(first, first + _AT_ONCE)
        done[some] = _draw(pictures[some], np.asarray(greys[some], dtype=np.float64), side)
    return done


def _draw(pictures: Sequence[Sequence[Placed]], greys: NDArray[np.float64], side: int) -> NDArray[np.uint8]:
    scale = side / SIDE
    margin = max(_reach(outline, RADII["large"][1] * scale) for outline in OUTLINES.values())
    canvas = np.empty((len(pictures), side + 2 * margin, side + 2 * margin, 3), dtype=np.float32)
    canvas[:] = greys[:, None, None, None]
    for outline, at, found in _alike(pictures):
        centres = np.array([(each.x, each.y) for each in found]) * scale
        radii = np.array([each.radius for each in found]) * scale
        reach = _reach(outline, radii.max())
        columns, rows = (np.floor(centres).astype(int)[:, axis, None] + np.arange(-reach, reach + 1) for axis in (0, 1))
        x, y = (columns + 0.5 - centres[:, :1])[:, None, :], (rows + 0.5 - centres[:, 1:])[:, :, None]
        cover = outline.cover(x, y, radii[:, None, None])[..., None].astype(np.float32)
        rgb = np.array([each.rgb for each in found], dtype=np.float32)[:, None, None, :]
        for turn in _turns(at):  # patches of one picture may meet
            patch = at[turn, None, None], rows[turn, :, None] + margin, columns[turn, None, :] + margin
            canvas[patch] += cover[turn] * (rgb[turn] - canvas[patch])
    inner = canvas[:, margin : margin + side, margin : margin + side]
    return np.ascontiguousarray(np.rint(inner).astype(np.uint8).transpose(0, 3, 1, 2))


def _reach(outline: Outline, radius: float) -> int:
    """So many pixels to each side of the one that an outline is centred in hold all of it."""
    return math.ceil(max(outline.across, outline.up, outline.down) * radius) + 2


def _alike(
    pictures: Sequence[Sequence[Placed]],
) -> Iterator[tuple[Outline, NDArray[np.int64], list[Placed]]]:
    """The objects of one shape and size, and the picture of each, ascending."""

    def kind(pair: tuple[int, Placed]) -> tuple[str, str]:
        return pair[1].thing.shape, str(pair[1].thing.size)

    every = sorted(((i, each) for i, objects in enumerate(pictures) for each in objects), key=kind)
    for (shape, _), group in groupby(every, kind):
        at, found = zip(*group, strict=True)
        yield OUTLINES[shape], np.array(at), list(found)


def _turns(at: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The objects in parts that hold no two of one picture."""
    rank = np.arange(len(at)) - np.searchsorted(at, at)
    return [np.flatnonzero(rank == turn) for turn in range(int(rank.max()) + 1)]
