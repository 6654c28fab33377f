"""Where the objects of a scene stand, how large they are, and in which shade."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .outlines import OUTLINES, Outline
from .scene import COLOURS, SIZES, Scene, Thing

SIDE = 64
"""The side of the pictures that all lengths here are for, in pixels; others are enlarged or reduced."""
RADII = {"small": (5.4, 6.6), "large": (9.0, 10.4)}
"""Of a circle with the area of the object, in pixels."""
BETWEEN_SIZES = 7.7
"""What is smaller is small; as many times larger than the largest small one as it is smaller than the smallest large one."""
GREYS = (224, 250)
"""Of the background."""
SHADE = 12
"""By how much an object's red, green and blue each differ from those of its colour, at most."""
NUMBERS = 27
"""Random numbers that a scene takes at most: for four objects a radius, a place and a shade each, and three to mix them."""

_MARGIN = 2.0
_GAP = 3.0
_SLANT = 0.6  # of two things one beside the other, how much further apart they are across than along, at most


@dataclass(frozen=True)
class Placed:
    """An object as it is drawn.

    Args:
        thing: What it is; its size is always known.
        x: Of its centre of mass, in pixels from the left edge.
        y: The same from the upper edge.
        radius: Of a circle with the same area, in pixels.
        rgb: In [0, 255].
    """

    thing: Thing
    x: float
    y: float
    radius: float
    rgb: tuple[float, float, float]


@dataclass(frozen=True)
class Box:
    """How far an object reaches from its centre of mass, in pixels."""

    across: float
    up: float
    down: float

    @classmethod
    def of(cls, outline: Outline, radius: float) -> Box:
        """The box around an outline."""
        return cls(outline.across * radius, outline.up * radius, outline.down * radius)


def place(scene: Scene, numbers: Sequence[float]) -> tuple[Placed, ...]:
    """The objects of a scene, none of which touches another or the edge.

    Args:
        scene: With the size of everything, and the relation of two things.
        numbers: `NUMBERS` uniform random numbers in (0, 1).
    """
    draw = iter(numbers)
    radii = [_between(RADII[thing.size or SIZES[0]], next(draw)) for thing in scene.objects]
    boxes = [Box.of(OUTLINES[thing.shape], radius) for thing, radius in zip(scene.objects, radii, strict=True)]
    if len(scene.things) == 2:
        centres = _related(boxes, scene.relation or "left of", draw)
    elif len(boxes) == 1:
        centres = [_within(boxes[0], (0.0, 0.0, SIDE, SIDE), draw, _MARGIN)]
    else:
        centres = _alike(boxes, draw)
    return tuple(
        Placed(thing, x, y, radius, _shade(thing.colour, draw))
        for thing, (x, y), radius in zip(scene.objects, centres, radii, strict=True)
    )


def _between(ends: tuple[float, float], u: float) -> float:
    return ends[0] + (ends[1] - ends[0]) * u


def _shade(colour: str, draw: Iterator[float]) -> tuple[float, float, float]:
    red, green, blue = (min(255.0, max(0.0, each + SHADE * (2 * next(draw) - 1))) for each in COLOURS[colour])
    return red, green, blue


def _within(
    box: Box, room: tuple[float, float, float, float], draw: Iterator[float], margin: float
) -> tuple[float, float]:
    """Anywhere in a room (left, top, right, bottom) that the box fits into."""
    left, top, right, bottom = room
    x = _between((left + margin + box.across, right - margin - box.across), next(draw))
    return x, _between((top + margin + box.up, bottom - margin - box.down), next(draw))


def _related(boxes: Sequence[Box], relation: str, draw: Iterator[float]) -> list[tuple[float, float]]:
    """Centres of two boxes of which the first is left of, right of, above or below the second."""
    if relation in ("right of", "below"):
        swapped = {"right of": "left of", "below": "above"}[relation]
        return _related(boxes[::-1], swapped, draw)[::-1]
    flat = relation == "left of"
    # Before, after along the axis of the relation; before, after along the other one.
    spans = [(b.across, b.across, b.up, b.down) if flat else (b.up, b.down, b.across, b.across) for b in boxes]
    (a0, a1, a2, a3), (b0, b1, b2, b3) = spans
    free = SIDE - 2 * _MARGIN - _GAP - (a0 + a1 + b0 + b1)
    start = free * next(draw)
    a = _MARGIN + start + a0
    b = a + a1 + _GAP + (free - start) * next(draw) + b0
    across = _between((_MARGIN + a2, SIDE - _MARGIN - a3), next(draw))
    beside = across + _SLANT * (b - a) * (2 * next(draw) - 1)
    beside = min(max(beside, _MARGIN + b2), SIDE - _MARGIN - b3)
    return [(a, across), (b, beside)] if flat else [(across, a), (beside, b)]


def _alike(boxes: Sequence[Box], draw: Iterator[float]) -> list[tuple[float, float]]:
    """Centres of two to four boxes, each somewhere in a quarter of the picture of its own."""
    quarters = [(x, y) for x in (0.0, SIDE / 2) for y in (0.0, SIDE / 2)]
    for i in range(len(quarters) - 1):  # shuffled
        j = i + int(next(draw) * (len(quarters) - i))
        quarters[i], quarters[j] = quarters[j], quarters[i]
    half = SIDE / 2
    rooms = [(x, y, x + half, y + half) for x, y in quarters]
    return [_within(box, room, draw, _GAP / 2) for box, room in zip(boxes, rooms, strict=False)]
