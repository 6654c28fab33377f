"""The program that reads pictures of coloured shapes is right on pictures of which everything is known."""

from collections import Counter

import pytest
import torch

from unnoise.data.scenes.scene import SHAPES
from unnoise.data.shapes import ShapesDataset
from unnoise.errors import DataError, ShapeError
from unnoise.evaluation.scenes.reading import read

N = 400  # of each kind of damage: 2,000 pictures in all


def known(pictures):
    return [Counter((o.thing.colour, o.thing.shape, o.thing.size) for o in each.objects) for each in pictures]


def found(seen):
    return [Counter((o.colour, o.shape, o.size) for o in each) for each in seen]


def drawn(pictures, size=64):
    return ShapesDataset(size=size).draw(pictures)


@pytest.fixture(scope="module")
def pictures():
    half = range(N // 2)
    return [*ShapesDataset(seed=5).pictures(half), *ShapesDataset(seed=6, split="held_out").pictures(half)]


def test_it_reads_99_of_100_pictures_right_in_every_attribute(pictures, spoil):
    seen = read(spoil(drawn(pictures)))
    right = sum(a == b for a, b in zip(known(pictures), found(seen), strict=True))
    assert right / N >= 0.99


def test_places_and_areas_are_right(pictures):
    for picture, seen in zip(pictures, read(drawn(pictures)), strict=True):
        for each in picture.objects:
            near = min(seen, key=lambda o: (o.x - each.x) ** 2 + (o.y - each.y) ** 2)
            assert (near.x, near.y) == pytest.approx((each.x, each.y), abs=0.4)
            assert near.radius == pytest.approx(each.radius, rel=0.05)


@pytest.mark.parametrize("size", [48, 128])
def test_pictures_of_another_side_are_read_alike(pictures, size):
    some = pictures[::8]
    right = sum(a == b for a, b in zip(known(some), found(read(drawn(some, size))), strict=True))
    assert right / len(some) >= 0.98


def test_an_empty_picture_and_noise_hold_nothing():
    empty = torch.full((2, 3, 64, 64), 240, dtype=torch.uint8)
    empty[1] = 30
    assert read(empty) == [(), ()]
    grey = 235 + 10 * torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert read(grey) == [()] * 4


def test_what_is_like_no_shape_has_none():
    x = torch.full((1, 3, 64, 64), 240.0)
    x[0, :, 10:14, 6:58] = torch.tensor([205.0, 30, 40])[:, None, None]  # a bar
    x[0, :, 40:60, 8:28] = torch.tensor([25.0, 60, 190])[:, None, None]  # a square with an edge torn out
    x[0, :, 46:54, 8:22] = 240
    ((bar, torn),) = [sorted(read(x)[0], key=lambda o: o.y)]
    assert (bar.colour, bar.shape, torn.colour, torn.shape) == ("red", None, "blue", None)


def test_objects_that_touch_are_told_apart_by_their_colours():
    x = torch.full((1, 3, 64, 64), 240.0)
    x[0, :, 20:38, 12:30] = torch.tensor([205.0, 30, 40])[:, None, None]
    x[0, :, 20:38, 30:48] = torch.tensor([25.0, 60, 190])[:, None, None]
    assert found(read(x)) == [Counter({("red", "square", "large"): 1, ("blue", "square", "large"): 1})]


def test_the_answer_does_not_depend_on_the_pictures_beside_it(pictures):
    x = drawn(pictures[:70])
    assert read(x)[65:70] == read(x[65:70])
    assert {o.shape for each in read(x) for o in each} == set(SHAPES)


def test_what_cannot_be_read_is_refused():
    with pytest.raises(ShapeError, match=r"colour pictures of shape .*, got \(2, 1, 64, 64\)"):
        read(torch.zeros(2, 1, 64, 64))
    with pytest.raises(ShapeError, match="64, 32"):
        read(torch.zeros(2, 3, 64, 32))
    with pytest.raises(DataError, match="NaN"):
        read(torch.full((1, 3, 64, 64), torch.nan))
