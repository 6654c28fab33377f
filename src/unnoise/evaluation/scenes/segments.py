"""Which pixels of a picture belong together: of one colour, side by side, and not of the background."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...data.scenes.scene import COLOURS

Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]
Whole = NDArray[np.int64]

NAMES = tuple(COLOURS)
PALETTE = torch.tensor(list(COLOURS.values()), dtype=torch.float32)
"""Shape (K, 3), by the numbers of the names."""
SPECK = 20
"""Pixels; what is smaller is no object."""

_FRAME = 2  # pixels around the picture that show its background
_SOLID = 0.5  # an object is where it covers more of a pixel than the background does
_BRIGHTEST = 1.15  # times a colour's distance from the background, still along the same line


@dataclass(frozen=True)
class Segments:
    """The objects of some pictures, as pixels.

    Args:
        picture: Of each of n objects, the number of its picture, ascending; shape (n,).
        colour: The name of each object's colour.
        cover: How much of each pixel around an object it covers, in [0, 1]; shape (n, side, side).
    """

    picture: Whole
    colour: tuple[str, ...]
    cover: Floats


def segments(x: Tensor) -> Segments:
    """Finds the objects.

    A pixel at the edge of an object is a mixture of its colour and the background, and lies on the line between them: so
    each pixel belongs to the colour whose line is nearest, and how far along it lies is how much of it is covered.

    Args:
        x: Shape (B, 3, side, side), float32 in [0, 255].
    """
    ground = _background(x)
    away = x - ground[:, :, None, None]
    lines = PALETTE - ground[:, None, :]
    along, miss = _along(away.flatten(2), lines)
    nearest = miss.argmin(1)
    solid = along.gather(1, nearest[:, None])[:, 0] > _SOLID
    side = x.shape[-2:]
    kinds = _by_majority(nearest.unflatten(1, side), solid.unflatten(1, side))
    parts = _connected(kinds.numpy())
    roots, sizes = np.unique(parts[parts >= 0], return_counts=True)
    return _cut_out(away.movedim(1, -1).numpy(), lines.numpy(), parts, roots[sizes >= SPECK])


def _background(x: Tensor) -> Tensor:
    """The colour of most of the frame, shape (B, 3)."""
    frame = torch.ones(x.shape[-2:], dtype=torch.bool)
    frame[_FRAME:-_FRAME, _FRAME:-_FRAME] = False
    return x[:, :, frame].median(2).values


def _along(away: Tensor, lines: Tensor) -> tuple[Tensor, Tensor]:
    """How far colours lie on the way along each line, and how far from it, squared.

    Args:
        away: From the background, shape (B, 3, n).
        lines: Shape (B, K, 3).

    Returns:
        Both of shape (B, K, n).
    """
    length = lines.square().sum(2, keepdim=True).clamp(min=1e-6)
    dots = lines @ away
    along = (dots / length).clamp(0, _BRIGHTEST)
    return along, away.square().sum(1, keepdim=True) - along * (2 * dots - along * length)


def _by_majority(nearest: Tensor, solid: Tensor) -> Tensor:
    """Each solid pixel's colour, by a vote of itself and its eight neighbours, and -1 elsewhere; shape (B, side, side)."""
    best, kinds = torch.zeros(nearest.shape), torch.full_like(nearest, -1)
    for k in range(len(PALETTE)):
        votes = (solid & (nearest == k)).float()
        # Half a vote more for itself, where there is a tie.
        around = 9 * torch.nn.functional.avg_pool2d(votes[:, None], 3, 1, 1)[:, 0] + votes / 2
        kinds[around > best] = k
        best = torch.maximum(best, around)
    return kinds.masked_fill(~solid, -1)


def _connected(kinds: Whole) -> Whole:
    """The connected parts of one kind, each as the number of its last pixel; -1 where the kind is -1.

    Neighbours share an edge. Every pixel takes the highest number among its neighbours', and then that pixel's own: the
    distance over which a number has spread doubles each time.
    """
    padded = np.pad(kinds, ((0, 0), (1, 1), (1, 1)), constant_values=-1).reshape(-1)
    width = kinds.shape[2] + 2
    pixels = np.flatnonzero(padded >= 0)
    local = np.zeros(len(padded), dtype=np.int64)
    local[pixels] = np.arange(len(pixels))
    neighbours = [
        np.where(padded[pixels + step] == padded[pixels], local[pixels + step], local[pixels])
        for step in (1, -1, width, -width)
    ]
    parts = np.arange(len(pixels))
    while True:
        spread = np.maximum.reduce([parts, *(parts[each] for each in neighbours)])
        spread = spread[spread]
        if np.array_equal(spread, parts):
            break
        parts = spread
    found = np.full(kinds.size, -1)
    numbers = np.flatnonzero(kinds.reshape(-1) >= 0)
    found[numbers] = numbers[parts]
    return found.reshape(kinds.shape)


def _cut_out(away: Floats, lines: Floats, parts: Whole, roots: Whole) -> Segments:
    """Each part as the share that it covers of its own pixels and of those two steps around it."""
    picture = roots // parts[0].size
    names, cover = [], np.zeros((len(roots), *parts.shape[1:]), dtype=np.float32)
    for i, (root, k) in enumerate(zip(roots, picture, strict=True)):
        own = parts[k] == root
        solid = _shrunk(_shrunk(own))
        rgb = away[k][solid if solid.any() else own].mean(0)
        named = _named(rgb, lines[k])
        names.append(NAMES[named])
        if not solid.any():  # too thin for any pixel to be all of its colour, once it is blurred
            rgb = lines[k, named]
        around = _grown(_grown(own)) & ((parts[k] < 0) | own)
        cover[i][around] = np.clip(away[k][around] @ rgb / max(float(rgb @ rgb), 1e-6), 0, 1)
    return Segments(picture, tuple(names), cover)


def _named(rgb: Floats, lines: Floats) -> int:
    """The number of the colour whose line is nearest, from half of its way on."""
    along = np.clip(lines @ rgb / np.square(lines).sum(1), _SOLID, _BRIGHTEST)
    return int(np.square(rgb - along[:, None] * lines).sum(1).argmin())


def _grown(mask: Mask) -> Mask:
    """The pixels of a mask and their neighbours."""
    padded = np.pad(mask, 1)
    return padded[1:-1, 1:-1] | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]


def _shrunk(mask: Mask) -> Mask:
    return ~_grown(~mask)
