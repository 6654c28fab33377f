"""Whether pictures of coloured shapes show what was asked for, attribute by attribute."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import permutations

from torch import Tensor

from ...data.scenes.scene import RELATIONS, Scene, Thing
from ...data.scenes.words import parse
from ...errors import BadOption, ShapeError
from ..adherence import Share, share
from .reading import Seen, read

GROUPS = ("one object", "two things", "several alike")


@dataclass(frozen=True)
class Marks:
    """What is right in one picture; None for what was not asked.

    Args:
        colour: Whether every colour asked for is there, on as many objects.
        shape: Whether every shape asked for is there, as often.
        size: Whether everything whose size was asked for has it, among the objects of its colour and shape.
        relation: Whether two things stand to each other as asked; False where one of them is missing.
        count: Whether there are as many objects as asked for.
        bound: Of two things: whether no attribute went to the wrong object. False where all colours, shapes and sizes
            asked for are there, and only their combinations are not.
        everything: Whether the picture shows what was asked for, and nothing else.
    """

    colour: bool
    shape: bool
    size: bool | None
    relation: bool | None
    count: bool
    bound: bool | None
    everything: bool


ASPECTS = tuple(field.name for field in fields(Marks))


@dataclass(frozen=True)
class Adherence:
    """How often pictures show what was asked for.

    Args:
        prompts: What was asked for.
        seen: The objects that were found in each picture.
        marks: What is right in each.
    """

    prompts: tuple[Scene, ...]
    seen: tuple[tuple[Seen, ...], ...]
    marks: tuple[Marks, ...]

    @property
    def shares(self) -> dict[str, Share]:
        """The share of pictures in which each aspect is right, with Wilson's 95 % interval, of those where it was asked."""
        return _shares(self.marks)

    @property
    def binding_errors(self) -> Share | None:
        """The share of pictures of two things that show the right attributes on the wrong objects."""
        asked = [marks.bound for marks in self.marks if marks.bound is not None]
        return share(asked.count(False), len(asked)) if asked else None

    @property
    def groups(self) -> dict[str, dict[str, Share]]:
        """The same shares for prompts of one object, of two things, and of several alike."""
        found: dict[str, list[Marks]] = {}
        for scene, marks in zip(self.prompts, self.marks, strict=True):
            found.setdefault(_group(scene), []).append(marks)
        return {name: _shares(found[name]) for name in GROUPS if name in found}

    def as_dict(self) -> dict[str, object]:
        """The numbers as plain values."""

        def plain(shares: Mapping[str, Share]) -> dict[str, object]:
            return {name: _plain(each) for name, each in shares.items()}

        errors = self.binding_errors
        return {
            "n": len(self.marks),
            **plain(self.shares),
            "binding errors": None if errors is None else _plain(errors),
            "groups": {name: plain(shares) for name, shares in self.groups.items()},
        }


def adherence(pictures: Tensor, prompts: Sequence[str | Scene]) -> Adherence:
    """Reads pictures, and holds what they show against what was asked for.

    Args:
        pictures: Shape (B, 3, side, side), uint8, or floats in [0, 255].
        prompts: What each was asked to show: a caption, or a scene.

    Raises:
        ShapeError: There are not as many prompts, or none, or they are no square colour pictures.
        DataError: A caption is not understood, or a picture holds NaN.
    """
    if len(pictures) != len(prompts) or not len(prompts):
        raise ShapeError(f"expected a prompt for each of {len(pictures)} pictures, at least one, got {len(prompts)}")
    scenes = tuple(prompt if isinstance(prompt, Scene) else parse(prompt) for prompt in prompts)
    seen = tuple(read(pictures))
    return Adherence(scenes, seen, tuple(mark(scene, each) for scene, each in zip(scenes, seen, strict=True)))


def mark(scene: Scene, seen: Sequence[Seen]) -> Marks:
    """What is right in a picture.

    Args:
        scene: What was asked for.
        seen: The objects that it shows.
    """
    asked = scene.objects
    colour = not Counter(each.colour for each in asked) - Counter(each.colour for each in seen)
    shape = not Counter(each.shape for each in asked) - Counter(each.shape for each in seen if each.shape)
    sizes = Counter(each.size for each in asked if each.size is not None)
    as_many = len(seen) == len(asked)
    matched = _matches(asked, seen)
    relation = None if scene.relation is None else any(_stands(pair, scene.relation) for pair in _pairs(scene, seen))
    related = scene.relation is None or any(_stands(pair, scene.relation) for pair in matched)
    bound = None
    if len(scene.things) == 2:
        loose = colour and shape and as_many and not sizes - Counter(each.size for each in seen)
        bound = bool(matched) or not loose
    return Marks(
        colour=colour,
        shape=shape,
        size=_sizes_right(scene, seen) if sizes else None,
        relation=relation,
        count=as_many,
        bound=bound,
        everything=as_many and bool(matched) and related,
    )


def _matches(asked: Sequence[Thing], seen: Sequence[Seen]) -> list[tuple[Seen, ...]]:
    """Every way to find all that was asked for among as many objects, in the order in which it was asked."""
    if len(asked) != len(seen):
        return []
    return [
        order for order in permutations(seen) if all(each.is_a(thing) for thing, each in zip(asked, order, strict=True))
    ]


def _pairs(scene: Scene, seen: Sequence[Seen]) -> list[tuple[Seen, ...]]:
    """Every two objects that are the two things asked for, but for their size."""
    first, second = ([each for each in seen if _is_kind(each, thing)] for thing in scene.things)
    return [(a, b) for a in first for b in second]


def _is_kind(seen: Seen, thing: Thing) -> bool:
    return (seen.colour, seen.shape) == (thing.colour, thing.shape)


def _stands(pair: Sequence[Seen], relation: str) -> bool:
    """Whether the first stands to the second as the relation says: further that way than across."""
    if relation in ("right of", "below"):
        return _stands(pair[::-1], RELATIONS[relation])
    across, down = pair[1].x - pair[0].x, pair[1].y - pair[0].y
    return across > abs(down) if relation == "left of" else down > abs(across)


def _sizes_right(scene: Scene, seen: Sequence[Seen]) -> bool:
    for thing in scene.things:
        alike = [each for each in seen if _is_kind(each, thing)]
        right = [each for each in alike if each.size == thing.size]
        if thing.size is not None and len(right) < max(thing.count, len(alike)):
            return False
    return True


def _group(scene: Scene) -> str:
    return GROUPS[1] if len(scene.things) == 2 else GROUPS[0] if scene.things[0].count == 1 else GROUPS[2]


def _shares(marks: Sequence[Marks]) -> dict[str, Share]:
    found = {}
    for aspect in ASPECTS:
        asked = [value for each in marks if (value := getattr(each, aspect)) is not None]
        if asked:
            found[aspect] = share(asked.count(True), len(asked))
    return found


def _plain(each: Share) -> dict[str, float]:
    return {"value": each.value, "low": each.low, "high": each.high, "n": each.trials}


Sample = Callable[[Sequence[str], float, int], Tensor]
"""Pictures for prompts, at a guidance scale, in so many steps: uint8 of shape (len(prompts), 3, side, side)."""


def over_settings(
    sample: Sample,
    prompts: Sequence[str],
    guidance: Sequence[float],
    steps: Sequence[int],
    progress: Callable[[int, int], None] | None = None,
) -> dict[tuple[float, int], Adherence]:
    """How well prompts are followed, for every guidance scale and number of steps.

    Args:
        sample: Makes the pictures; prompt k should start from the same noise at all settings.
        prompts: What is asked for.
        guidance: Scales.
        steps: From noise to data.
        progress: Told how many settings are done, and how many there are.

    Raises:
        BadOption: There is no scale, or no number of steps.
        DataError: A prompt is not understood, which is said before anything is made.
    """
    if not guidance or not steps:
        raise BadOption("guidance, steps: expected at least one value of each")
    scenes = [parse(prompt) for prompt in prompts]
    settings = [(scale, count) for scale in guidance for count in steps]
    found = {}
    for done, (scale, count) in enumerate(settings):
        if progress is not None:
            progress(done, len(settings))
        found[scale, count] = adherence(sample(prompts, scale, count), scenes)
    if progress is not None:
        progress(len(settings), len(settings))
    return found
