"""Paths of points in the plane: how samples travel."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from ..errors import ShapeError
from . import style
from .arrays import Array, floats, vectors
from .points import scatter
from .window import Limits, window

_SHARPER = 3  # lines are drawn this much larger, then averaged


def paths(
    points: Array, size: int = 480, limits: Limits | None = None, *, background: Array | None = None
) -> Image.Image:
    """Each point's way as a line in its own colour, from a ring to a dot.

    Args:
        points: Shape (K, N, D) with D > 1: where N points are at K moments; the first two coordinates are drawn.
        size: The longer side, in pixels.
        limits: As in `scatter`; by default, a square around the background, else around the paths.
        background: Shape (M, D), drawn faintly behind the paths: the data.

    Raises:
        ShapeError: Points or background have another shape.
        BadOption: The limits or the size make no picture.
    """
    ways = floats(points)
    if ways.ndim != 3 or ways.shape[2] < 2 or not len(ways):
        raise ShapeError(f"expected points of shape (K, N, D) with K > 0 and D > 1, got {ways.shape}")
    ways = ways[:, :, :2]
    behind = None if background is None else vectors("background", background)[:, :2]
    view = window(limits, size, behind, ways.reshape(-1, 2))
    picture = scatter(np.zeros((0, 2)), size, (view.left, view.right, view.bottom, view.top), background=behind)
    layer = Image.new("RGBA", (picture.width * _SHARPER, picture.height * _SHARPER), (255, 255, 255, 0))
    draw, width = ImageDraw.Draw(layer), max(2, round(size / 300 * _SHARPER))
    lines = [[(float(x), float(y)) for x, y in view.pixels(ways[:, i]) * _SHARPER] for i in range(ways.shape[1])]
    colours = [(*style.rgb(style.PALETTE[i % len(style.PALETTE)]), 255) for i in range(len(lines))]
    for line, colour in zip(lines, colours, strict=True):
        draw.line(line, fill=colour, width=width, joint="curve")
    for line, colour in zip(lines, colours, strict=True):  # above the lines of all
        _dot(draw, line[0], 2.2 * width, style.PAPER, colour)
        _dot(draw, line[-1], 2.2 * width, style.INK, colour)
    drawn = Image.alpha_composite(picture.convert("RGBA"), layer.reduce(_SHARPER)).convert("RGB")
    return view.frame(drawn)


def _dot(
    draw: ImageDraw.ImageDraw, at: tuple[float, float], radius: float, inside: str, ring: tuple[int, int, int, int]
) -> None:
    box = (at[0] - radius, at[1] - radius, at[0] + radius, at[1] + radius)
    draw.ellipse(box, fill=(*style.rgb(inside), 255), outline=ring, width=max(1, round(radius / 3)))
