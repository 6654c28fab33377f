"""What a picture of coloured shapes can show, and which combinations nobody is trained on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Literal

from ...errors import BadOption

Split = Literal["train", "held_out"]

COLOURS = {
    "red": (205, 30, 40),
    "orange": (240, 135, 20),
    "yellow": (250, 225, 50),
    "green": (0, 150, 90),
    "cyan": (85, 198, 243),
    "blue": (25, 60, 190),
    "purple": (125, 45, 145),
    "black": (25, 25, 25),
}
"""Red, green and blue in [0, 255]; told apart by people with any kind of colour vision."""
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
SIZES = ("small", "large")
RELATIONS = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
"""What the first thing can be to the second, and what the second is to the first then."""
MOST_ALIKE = 4
"""So many objects of one kind can be asked for."""

HELD_OUT_PAIRS = frozenset(
    {
        ("red", "star"),
        ("orange", "cross"),
        ("yellow", "circle"),
        ("green", "square"),
        ("cyan", "triangle"),
        ("blue", "ring"),
        ("purple", "circle"),
        ("black", "star"),
    }
)
"""Colours of shapes that training never shows: one shape of every colour."""
HELD_OUT_ARRANGEMENTS = frozenset(
    {
        ("circle", "left of", "triangle"),
        ("square", "left of", "star"),
        ("cross", "left of", "ring"),
        ("triangle", "above", "square"),
        ("star", "above", "circle"),
        ("ring", "above", "cross"),
    }
)
"""Shapes beside and above each other that training never shows, however it is said."""


@dataclass(frozen=True)
class Thing:
    """What is asked for in one noun: "a small red circle", "three green triangles".

    Args:
        colour: One of `COLOURS`.
        shape: One of `SHAPES`.
        size: One of `SIZES`, or None where nothing is said of it.
        count: How many of them.

    Raises:
        BadOption: There is no such colour, shape or size, or the count is none that can be drawn.
    """

    colour: str
    shape: str
    size: str | None = None
    count: int = 1

    def __post_init__(self) -> None:
        for name, known in (("colour", COLOURS), ("shape", SHAPES), ("size", (*SIZES, None))):
            if getattr(self, name) not in known:
                there_are = ", ".join(str(each) for each in known if each is not None)
                raise BadOption(f"{name}: expected one of {there_are}, got {getattr(self, name)!r}")
        if not 1 <= self.count <= MOST_ALIKE:
            raise BadOption(f"count: expected 1 to {MOST_ALIKE}, got {self.count}")


@dataclass(frozen=True)
class Scene:
    """What a picture shows, as far as words say it.

    Args:
        things: One, or two that differ in colour or shape and of which there is one each.
        relation: One of `RELATIONS`: what the first of two things is to the second; None where nothing is said of it.

    Raises:
        BadOption: There are more things, or they are no two, or one alone has a relation.
    """

    things: tuple[Thing, ...]
    relation: str | None = None

    def __post_init__(self) -> None:
        if len(self.things) not in (1, 2):
            raise BadOption(f"things: expected one or two, got {len(self.things)}")
        if self.relation is not None and (len(self.things) == 1 or self.relation not in RELATIONS):
            raise BadOption(
                f"relation: expected one of {', '.join(RELATIONS)} between two things, got {self.relation!r}"
            )
        if len(self.things) == 2:
            first, second = self.things
            if (first.colour, first.shape) == (second.colour, second.shape):
                raise BadOption(f"things: both are {first.colour} {first.shape}s: say how many there are instead")
            if first.count > 1 or second.count > 1:
                raise BadOption("things: more than one of a kind can only be asked for where there is one kind")

    @property
    def objects(self) -> tuple[Thing, ...]:
        """Every object by itself, with a count of 1."""
        return tuple(Thing(each.colour, each.shape, each.size) for each in self.things for _ in range(each.count))

    def mirrored(self) -> Scene:
        """The same scene, with the things in the other order."""
        relation = None if self.relation is None else RELATIONS[self.relation]
        return Scene(self.things[::-1], relation)

    def held_out(self) -> bool:
        """Whether no training picture shows this combination of colour and shape, or these shapes so arranged."""
        if any((thing.colour, thing.shape) in HELD_OUT_PAIRS for thing in self.things):
            return True
        if self.relation is None:
            return False
        first = self if self.relation in ("left of", "above") else self.mirrored()
        return (first.things[0].shape, first.relation, first.things[1].shape) in HELD_OUT_ARRANGEMENTS


@cache
def single_things(split: Split) -> tuple[Thing, ...]:
    """Every colour of every shape that a split has."""
    found = (Thing(colour, shape) for colour, shape in product(COLOURS, SHAPES))
    return tuple(thing for thing in found if Scene((thing,)).held_out() == (split == "held_out"))


@cache
def arrangements(split: Split) -> tuple[Scene, ...]:
    """Every two things in every relation that a split has."""
    return tuple(scene for scene in _all_arrangements() if scene.held_out() == (split == "held_out"))


def _all_arrangements() -> Iterator[Scene]:
    kinds = list(product(COLOURS, SHAPES))
    for first, second, relation in product(kinds, kinds, RELATIONS):
        if first != second:
            yield Scene((Thing(*first), Thing(*second)), relation)
