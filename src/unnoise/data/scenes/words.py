"""Scenes in words, short and long, and words as scenes."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ...errors import BadOption, DataError, nearest
from .scene import COLOURS, MOST_ALIKE, RELATIONS, SHAPES, Scene, Thing

_NUMBERS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4}
_SIZE_WORDS = {"small": "small", "little": "small", "tiny": "small", "large": "large", "big": "large", "huge": "large"}
_LONG_RELATIONS = {"left of": "to the left of", "right of": "to the right of", "above": "above", "below": "below"}
_AT_ITS = {"left of": "to its left", "right of": "to its right", "above": "above it", "below": "below it"}
_SIDES = {
    "left of": ("on the left", "on the right"),
    "right of": ("on the right", "on the left"),
    "above": ("at the top", "at the bottom"),
    "below": ("at the bottom", "at the top"),
}
_SYNONYMS = {"over": "above", "under": "below", "beneath": "below", "underneath": "below"}
_FILLERS = frozenset(
    "a an the picture image photo drawing of that shows showing with there is are and nothing else on plain light grey "
    "background exactly together to its it left right above below at top bottom in".split()
)
_PLURALS = {shape: f"{shape}es" if shape.endswith("s") else f"{shape}s" for shape in SHAPES}
_SINGULARS = {word: shape for shape, plural in _PLURALS.items() for word in (shape, plural)}


def _any_of(words: Iterable[str]) -> str:
    return "|".join(sorted(words, key=len, reverse=True))


_THING = re.compile(
    rf"\b(?:(?P<number>{_any_of(_NUMBERS)}|\d+) )?(?:(?P<size>{_any_of(_SIZE_WORDS)}) )?"
    rf"(?P<colour>{_any_of(COLOURS)}) (?P<shape>{_any_of(_SINGULARS)})\b"
)


def short_captions(scene: Scene) -> tuple[str, ...]:
    """The scene in few words: "red circle left of blue square", "a red circle left of a blue square".

    Args:
        scene: What is said.

    Returns:
        All phrasings, every one of which `parse` takes back to the scene.
    """
    between = " and " if scene.relation is None else f" {scene.relation} "
    with_article, without = (between.join(_noun(thing, article) for thing in scene.things) for article in (True, False))
    return tuple(dict.fromkeys((without, with_article)))  # a number takes the place of both


def long_captions(scene: Scene) -> tuple[str, ...]:
    """The scene in whole sentences, the things not always in the same order; see `short_captions`."""
    first = _noun(scene.things[0])
    if len(scene.things) == 1:
        verb = "is" if scene.things[0].count == 1 else "are"
        return (
            f"a picture of {first} on a plain background",
            f"there {verb} {first} on a light grey background",
            f"an image that shows {first} and nothing else",
        )
    second = _noun(scene.things[1])
    if scene.relation is None:
        return (
            f"a picture of {first} and {second} on a plain background",
            f"there is {first} together with {second}",
            f"an image that shows {first} and {second} and nothing else",
        )
    here, there = _SIDES[scene.relation]
    return (
        f"a picture of {first} {_LONG_RELATIONS[scene.relation]} {second}",
        f"there is {second} with {first} {_AT_ITS[scene.relation]}",
        f"{here} there is {first}, {there} there is {second}",
    )


def captions(scene: Scene) -> tuple[str, ...]:
    """Every phrasing of a scene, the short ones first."""
    return (*short_captions(scene), *long_captions(scene))


def parse(caption: str) -> Scene:
    """The scene that a caption asks for: `parse(caption) == scene` for every phrasing of `captions(scene)`, and for others.

    Args:
        caption: Words about one or two things, such as "a small red circle left of a large blue square".

    Raises:
        DataError: Something in it is not understood; the message says what.
    """
    text = " ".join(re.findall(r"[a-z0-9]+", caption.lower()))
    found = list(_THING.finditer(text))
    if not 1 <= len(found) <= 2:
        raise DataError(
            f"caption {caption!r}: expected one or two things such as 'a small red circle', found {len(found)} "
            f"(colours: {', '.join(COLOURS)}; shapes: {', '.join(SHAPES)})"
        )
    edges = [0, *(edge for match in found for edge in match.span()), len(text)]
    around = [text[low:high].strip() for low, high in zip(edges[::2], edges[1::2], strict=True)]
    left = [word for word in " ".join(around).split() if word not in _FILLERS and word not in _SYNONYMS]
    if left:
        known = (*COLOURS, *_SINGULARS, *_SIZE_WORDS, *_NUMBERS, *_SYNONYMS, *_FILLERS)
        word = next((word for word in left if word not in known), left[0])
        close = nearest(word, known).partition(" (known")[0]
        raise DataError(f"caption {caption!r}: the word {word!r} is not understood here{close}")
    try:
        things = tuple(_thing(match) for match in found)
        if len(things) == 1:
            return _alone(things[0], around)
        return _related(things, around)
    except BadOption as error:
        raise DataError(f"caption {caption!r}: {error}") from None


def _noun(thing: Thing, article: bool = True) -> str:
    words = [word for word in (thing.size, thing.colour) if word]
    if thing.count > 1:
        number = next(word for word, value in _NUMBERS.items() if value == thing.count)
        return " ".join([number, *words, _PLURALS[thing.shape]])
    before = [("an" if words[0][0] in "aeiou" else "a")] if article else []
    return " ".join([*before, *words, thing.shape])


def _thing(match: re.Match[str]) -> Thing:
    number, size = match["number"], match["size"]
    if number is None:
        if match["shape"] in _PLURALS.values():
            raise BadOption(f"say how many {match['shape']} there are, from one to {MOST_ALIKE}")
        count = 1
    else:
        count = _NUMBERS[number] if number in _NUMBERS else int(number)
    return Thing(match["colour"], _SINGULARS[match["shape"]], None if size is None else _SIZE_WORDS[size], count)


def _alone(thing: Thing, around: list[str]) -> Scene:
    place = next((side for sides in _SIDES.values() for side in sides if side in " ".join(around)), None)
    if place is not None:
        raise BadOption(f"{place!r} says where one thing is, which is only understood of two")
    return Scene((thing,))


def _related(things: tuple[Thing, ...], around: list[str]) -> Scene:
    before, between, after = around
    for relation, (here, there) in _SIDES.items():
        if here in before and there in between:
            return Scene(things, relation)
    for relation, words in _AT_ITS.items():
        if after.endswith(words):  # a square with a circle to its left: the circle is left of the square
            return Scene(things[::-1], relation)
    plain = " ".join(_SYNONYMS.get(word, word) for word in between.split())
    for relation in RELATIONS:
        if relation in plain:
            return Scene(things, relation)
    if between.split() and set(between.split()) <= {"and", "together", "with"}:
        return Scene(things)
    raise BadOption(f"{between!r} is no relation; there are {', '.join(RELATIONS)}, and `and`")
