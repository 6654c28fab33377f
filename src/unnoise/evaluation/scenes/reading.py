"""Reads pictures of coloured shapes: what there is, which colour, shape and size it has, and where it stands."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ...data.scenes.layout import BETWEEN_SIZES, SIDE
from ...data.scenes.outlines import OUTLINES
from ...data.scenes.scene import Thing
from ...errors import DataError, ShapeError
from .segments import segments

Floats = NDArray[np.float32]

LIKE = 0.7
"""What covers less than this share of the area that it covers together with every known shape has no shape."""

_BLURS = (0.7, 1.2, 1.7)  # standard deviations in pixels; the first is that of the smoothing before
_WINDOW = 20  # pixels from the centre of an object that are compared with the shapes
_AT_ONCE = 64


@dataclass(frozen=True)
class Seen:
    """An object that was found in a picture.

    Args:
        colour: The nearest of `COLOURS`.
        shape: One of `SHAPES`, or None where it is like none of them.
        size: One of `SIZES`.
        x: Of its centre of mass, in pixels from the left edge of a picture of `SIDE` pixels.
        y: The same from the upper edge.
        radius: Of a circle with the same area.
        likeness: The area that it shares with the shape, over the area of both together; in [0, 1].
    """

    colour: str
    shape: str | None
    size: str
    x: float
    y: float
    radius: float
    likeness: float

    def is_a(self, thing: Thing) -> bool:
        """Whether it is what is asked for; a size that is not asked for does not matter."""
        return (self.colour, self.shape) == (thing.colour, thing.shape) and thing.size in (None, self.size)


def read(pictures: Tensor) -> list[tuple[Seen, ...]]:
    """The objects of each picture, the largest first.

    Args:
        pictures: Shape (B, 3, side, side), uint8, or floats in [0, 255].

    Raises:
        ShapeError: They are no square colour pictures.
        DataError: Some values are not finite.
    """
    if pictures.ndim != 4 or pictures.shape[1] != 3 or pictures.shape[2] != pictures.shape[3]:
        raise ShapeError(f"expected colour pictures of shape (B, 3, side, side), got {tuple(pictures.shape)}")
    found: list[tuple[Seen, ...]] = []
    for part in pictures.split(_AT_ONCE):
        found += _read(_prepared(part))
    return found


def _prepared(pictures: Tensor) -> Tensor:
    """At the side that all lengths are for, float32, and slightly smoothed against noise."""
    x = pictures.detach().cpu().float()
    if not bool(torch.isfinite(x).all()):
        raise DataError("some pictures hold NaN or infinity, so they cannot be read")
    if x.shape[-1] != SIDE:
        x = functional.interpolate(x, (SIDE, SIDE), mode="bilinear", antialias=True)
    weights = torch.tensor([0.25, 0.5, 0.25])
    kernel = torch.outer(weights, weights).expand(3, 1, 3, 3)
    return functional.conv2d(functional.pad(x, (1, 1, 1, 1), mode="replicate"), kernel, groups=3)


def _read(x: Tensor) -> list[tuple[Seen, ...]]:
    found: list[list[Seen]] = [[] for _ in x]
    parts = segments(x)
    if not len(parts.picture):
        return [()] * len(x)
    area = parts.cover.sum((1, 2))
    middle = np.arange(SIDE, dtype=np.float32) + 0.5
    across = (parts.cover.sum(1) * middle).sum(1) / area
    down = (parts.cover.sum(2) * middle).sum(1) / area
    radius = np.sqrt(area / np.pi)
    shapes, likeness = _shapes(parts.cover, across, down, radius)
    for i in np.argsort(-area):
        size = "small" if radius[i] < BETWEEN_SIZES else "large"
        shape = shapes[i] if likeness[i] >= LIKE else None
        numbers = (float(each[i]) for each in (across, down, radius, likeness))
        found[parts.picture[i]].append(Seen(parts.colour[i], shape, size, *numbers))
    return [tuple(each) for each in found]


def _shapes(cover: Floats, across: Floats, down: Floats, radius: Floats) -> tuple[list[str], Floats]:
    """Which shape of the same area and centre each object shares most area with, and how much."""
    n = len(cover)
    window = np.arange(-_WINDOW, _WINDOW + 1)
    columns, rows = (np.floor(each).astype(int)[:, None] + window for each in (across, down))
    padded = np.pad(cover, ((0, 0), (_WINDOW, _WINDOW), (_WINDOW, _WINDOW)))
    patch = padded.astype(np.float32)[
        np.arange(n)[:, None, None], rows[:, :, None] + _WINDOW, columns[:, None, :] + _WINDOW
    ]
    scale = radius[:, None, None]
    x = (columns + 0.5 - across[:, None])[:, None, :] / scale
    y = (rows + 0.5 - down[:, None])[:, :, None] / scale
    likeness = []
    blurs = [_blurring(sigma) for sigma in _BLURS]
    mass = patch.sum((1, 2))
    for outline in OUTLINES.values():
        sharp = np.clip(0.5 - outline.distance(x, y) * scale, 0, 1).astype(np.float32)
        best = np.zeros(n)
        for blur in blurs:
            ideal = blur @ sharp @ blur
            common = np.minimum(patch, ideal).sum((1, 2))
            best = np.maximum(best, common / (mass + ideal.sum((1, 2)) - common))
        likeness.append(best)
    every = np.stack(likeness)
    names = list(OUTLINES)
    return [names[i] for i in every.argmax(0)], every.max(0)


def _blurring(sigma: float) -> NDArray[np.float32]:
    """The matrix that blurs the columns of a window, or from the right its rows, by a Gaussian."""
    at = np.arange(2 * _WINDOW + 1)
    weights = np.exp(-np.square(at[:, None] - at) / (2 * sigma**2))
    return (weights / np.exp(-np.square(at - _WINDOW) / (2 * sigma**2)).sum()).astype(np.float32)
