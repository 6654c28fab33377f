"""Pictures of coloured shapes with captions, as many as wanted, of which everything is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import torch
from torch import Tensor

from ..errors import BadOption
from ..options import option
from ..randomness import address, uniform
from .base import Dataset, DataSource, Progress, Spec, datasets
from .regions import Regions, joined
from .scenes.drawing import draw
from .scenes.layout import GREYS, NUMBERS, SIDE, Placed, place
from .scenes.regions import regions_of
from .scenes.scene import MOST_ALIKE, RELATIONS, SIZES, Scene, Split, arrangements, single_things
from .scenes.words import captions, long_captions, short_captions

T = TypeVar("T")

_CHOICES = 11  # random numbers that decide what a picture shows, before those that decide where it stands
_AT_ONCE = 2048
_SIZE_SAID = 0.6


@dataclass(frozen=True)
class Picture:
    """All that is known of one picture.

    Args:
        caption: What is said of it.
        said: The scene that the caption tells of: sizes and relation only where they are said.
        shown: The scene that it shows, with the size of everything and the relation of two things.
        objects: Where they stand, in the order of `shown`.
        grey: Of the background, in [0, 255].
    """

    caption: str
    said: Scene
    shown: Scene
    objects: tuple[Placed, ...]
    grey: float


@datasets.register("shapes")
@dataclass(frozen=True)
class ShapesDataset(DataSource):
    """Colour pictures of one to four objects with captions such as "a small red circle left of a large blue square".

    Eight colours, six shapes, two sizes, one object or two things beside or above each other or several alike. Picture k
    of a seed is the same whatever the number. One shape of every colour and some arrangements of two shapes are shown by the
    split `held_out` alone, every picture of which holds at least one of them: `unnoise.data.scenes.scene` lists them.

    Args:
        number: How many pictures.
        size: Side in pixels; at 64 everything is large enough to be told apart.
        most_objects: In one picture.
        split: Which combinations are shown.
        captions: Few words, whole sentences, each as often; or all phrasings of each, on lines of their own, of which training
            draws one whenever it sees the picture.
        one: The share of pictures of one object.
        alike: The share of pictures of several alike; the rest are of two things.
        sides_said: The share of captions of two things that say on which side they stand; all of `held_out` do.
        regions: Whether boxes around the objects, and maps of the pixels that they cover, go with the pictures; both by shape.
        seed: Which draw; the same pictures for the same seed.
    """

    number: int = option(10_000, help="how many pictures", low=1)
    size: int = option(SIDE, help="side of the pictures in pixels", low=32, high=512)
    most_objects: int = option(MOST_ALIKE, help="objects in one picture, at most", low=1, high=MOST_ALIKE)
    split: Split = option("train", help="train, or the combinations that training never shows: held_out")
    captions: Literal["short", "long", "mixed", "all"] = option(
        "mixed", help="few words, whole sentences, both by turns, or all phrasings on lines of their own"
    )
    one: float = option(0.35, help="share of pictures of one object", low=0.0, high=1.0)
    alike: float = option(0.2, help="share of several alike; the rest are of two things", low=0.0, high=1.0)
    sides_said: float = option(
        0.8, help="share of captions of two things that say on which side they stand", low=0.0, high=1.0
    )
    regions: bool = option(False, help="whether boxes and label maps of the objects go with the pictures")
    seed: int = option(0, help="which draw of the pictures", low=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.one + self.alike > 1:
            raise BadOption(
                f"one and alike: the shares of pictures of one object and of several alike must be at most 1 together, "
                f"got {self.one:g} and {self.alike:g}"
            )

    def load(self, progress: Progress | None = None) -> Dataset:
        """The pictures, uint8 of shape (number, 3, size, size), with their captions."""
        x = torch.empty((self.number, 3, self.size, self.size), dtype=torch.uint8)
        texts: list[str] = []
        parts: list[Regions] = []
        for first in range(0, self.number, _AT_ONCE):
            some = range(first, min(first + _AT_ONCE, self.number))
            found = self.pictures(some)
            x[first : some.stop] = self.draw(found)
            texts += (picture.caption for picture in found)
            if self.regions:
                parts.append(regions_of([picture.objects for picture in found], self.size))
            if progress is not None:
                progress("drawing", some.stop, self.number)
        return Dataset(x, Spec("image", (3, self.size, self.size)), texts=tuple(texts), regions=joined(parts))

    def pictures(self, indices: Sequence[int]) -> list[Picture]:
        """All that is known of some pictures; any index from 0 on has one, also beyond `number`."""
        numbers = uniform(address(self.seed, f"shapes {self.split}"), indices, _CHOICES + NUMBERS)
        return [self._picture(row.tolist()) for row in numbers]

    def draw(self, pictures: Sequence[Picture]) -> Tensor:
        """The pixels, uint8 of shape (N, 3, size, size)."""
        return torch.from_numpy(draw([each.objects for each in pictures], [each.grey for each in pictures], self.size))

    def _picture(self, numbers: list[float]) -> Picture:
        kind, which, how_many, relation_said, style, phrasing, grey = numbers[:7]
        sizes, sizes_said = numbers[7:9], numbers[9:11]
        scene = self._combination(kind, which, how_many)
        things = zip(scene.things, sizes, strict=False)
        shown = replace(scene, things=tuple(replace(thing, size=_chosen(SIZES, u)) for thing, u in things))
        # What is held out for its arrangement is so only where the arrangement is asked for.
        tells = relation_said < self.sides_said or self.split == "held_out"
        said = Scene(
            tuple(
                thing if u < _SIZE_SAID else replace(thing, size=None)
                for thing, u in zip(shown.things, sizes_said, strict=False)
            ),
            shown.relation if tells else None,
        )
        caption = self._caption(said, style, phrasing)
        objects = place(shown, numbers[_CHOICES:])
        return Picture(caption, said, shown, objects, _grey(grey))

    def _caption(self, said: Scene, style: float, phrasing: float) -> str:
        if self.captions == "all":
            return "\n".join(captions(said))
        short = self.captions == "short" or (self.captions == "mixed" and style < 0.5)
        return _chosen(short_captions(said) if short else long_captions(said), phrasing)

    def _combination(self, kind: float, which: float, how_many: float) -> Scene:
        if self.most_objects > 1 and self.one < kind < 1 - self.alike:
            return _chosen(arrangements(self.split), which)
        thing = _chosen(single_things(self.split), which)
        several = self.most_objects > 1 and kind > self.one
        return Scene((replace(thing, count=2 + int(how_many * (self.most_objects - 1)) if several else 1),))


def show(scenes: Sequence[Scene], seed: int = 0, size: int = SIDE) -> Tensor:
    """Pictures that show scenes; sizes and relations of which they say nothing are drawn by chance.

    Args:
        scenes: What is shown.
        seed: Of what is drawn by chance.
        size: Side of the pictures in pixels.

    Returns:
        Shape (len(scenes), 3, size, size), uint8.
    """
    numbers = uniform(address(seed, "shapes shown"), range(len(scenes)), NUMBERS + 4)
    objects = [place(_filled(scene, row[:3]), row[4:].tolist()) for scene, row in zip(scenes, numbers, strict=True)]
    return torch.from_numpy(draw(objects, [_grey(row[3]) for row in numbers], size))


def _filled(scene: Scene, numbers: Sequence[float]) -> Scene:
    """A scene with a size for everything, and a relation for two things."""
    things = tuple(
        replace(thing, size=thing.size or _chosen(SIZES, u)) for thing, u in zip(scene.things, numbers, strict=False)
    )
    related = len(things) == 2 and scene.relation is None
    return Scene(things, _chosen(tuple(RELATIONS), numbers[2]) if related else scene.relation)


def _grey(u: float) -> float:
    return GREYS[0] + (GREYS[1] - GREYS[0]) * u


def _chosen(members: Sequence[T], u: float) -> T:
    return members[int(u * len(members))]
