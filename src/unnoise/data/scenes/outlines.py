"""The outlines of shapes as signed distances, so that edges are antialiased at any size and place."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

_STAR_DEPTH = 0.5  # the inner corners of a star, as a share of the way to its tips
_CROSS_WIDTH = 0.36  # of the bars of a cross, as a share of their length
_RING_HOLE = 0.52  # the radius of the hole of a ring, as a share of the outer one


@dataclass(frozen=True)
class Outline:
    """A shape with the area of a circle of radius 1, its centre of mass at the origin; y points down.

    Args:
        distance: From (x, y) to the edge, negative inside; exact near straight edges, off corners.
        across: Half of its width; all shapes are symmetric from left to right.
        up: How far it reaches up from the centre of mass.
        down: How far it reaches down.
    """

    distance: Callable[[Floats, Floats], Floats]
    across: float
    up: float
    down: float

    def cover(self, x: Floats, y: Floats, radius: Floats | float, blur: float = 1.0) -> Floats:
        """How much of each pixel the shape covers, in [0, 1].

        Args:
            x: From the centre of mass to the middle of the pixel, in pixels.
            y: The same, down.
            radius: Of the circle with the same area, in pixels; of a shape that broadcasts with x and y.
            blur: Pixels over which the edge rises; 1 is an edge that is sharp before it is sampled.
        """
        radius = np.asarray(radius)
        return np.clip(0.5 - self.distance(x / radius, y / radius) * (radius / blur), 0.0, 1.0)


def _circle() -> Outline:
    return Outline(lambda x, y: np.hypot(x, y) - 1, 1.0, 1.0, 1.0)


def _square() -> Outline:
    half = math.sqrt(math.pi) / 2
    return Outline(lambda x, y: np.maximum(np.abs(x), np.abs(y)) - half, half, half, half)


def _triangle() -> Outline:
    inner = math.sqrt(math.pi / (3 * math.sqrt(3)))  # radius of the inscribed circle
    lean = math.sqrt(3) / 2
    return Outline(lambda x, y: np.maximum(lean * np.abs(x) - y / 2, y) - inner, math.sqrt(3) * inner, 2 * inner, inner)


def _star() -> Outline:
    turn = math.pi / 5
    tip = math.sqrt(math.pi / (5 * _STAR_DEPTH * math.sin(turn)))
    # One edge of ten, from the tip on the axis to the inner corner a tenth of a turn further.
    corner = _STAR_DEPTH * tip * math.cos(turn), _STAR_DEPTH * tip * math.sin(turn)
    along = corner[0] - tip, corner[1]
    length = math.hypot(*along)
    normal = along[1] / length, -along[0] / length

    def distance(x: Floats, y: Floats) -> Floats:
        angle = np.abs((np.arctan2(x, -y) + turn) % (2 * turn) - turn)
        far = np.hypot(x, y)
        return (far * np.cos(angle) - tip) * normal[0] + far * np.sin(angle) * normal[1]

    return Outline(distance, tip * math.sin(2 * turn), tip, tip * math.cos(turn))


def _cross() -> Outline:
    length = math.sqrt(math.pi / (4 * (2 * _CROSS_WIDTH - _CROSS_WIDTH**2)))
    width = _CROSS_WIDTH * length

    def distance(x: Floats, y: Floats) -> Floats:
        far, near = np.maximum(np.abs(x), np.abs(y)), np.minimum(np.abs(x), np.abs(y))
        return np.maximum(far - length, near - width)

    return Outline(distance, length, length, length)


def _ring() -> Outline:
    outer = 1 / math.sqrt(1 - _RING_HOLE**2)
    middle, half = outer * (1 + _RING_HOLE) / 2, outer * (1 - _RING_HOLE) / 2
    return Outline(lambda x, y: np.abs(np.hypot(x, y) - middle) - half, outer, outer, outer)


OUTLINES = {
    "circle": _circle(),
    "square": _square(),
    "triangle": _triangle(),
    "star": _star(),
    "cross": _cross(),
    "ring": _ring(),
}
"""By the name of the shape."""
