"""Pictures of coloured shapes: any number of them, the same each time, and nothing held out is trained on."""

from collections import Counter

import pytest
import torch

from unnoise.data.base import datasets
from unnoise.data.scenes.layout import RADII, SIDE
from unnoise.data.scenes.outlines import OUTLINES
from unnoise.data.scenes.words import long_captions, parse, short_captions
from unnoise.data.shapes import ShapesDataset, show
from unnoise.errors import BadOption


@pytest.fixture(scope="module", params=["train", "held_out"])
def pictures(request):
    return ShapesDataset(split=request.param).pictures(range(2000))


def test_picture_k_is_the_same_alone_and_in_any_number():
    few, many = ShapesDataset(number=5).load(), ShapesDataset(number=9).load()
    assert torch.equal(few.x, many.x[:5])
    assert few.texts == many.texts[:5]
    source = ShapesDataset()
    (alone,) = source.pictures([7])
    assert alone == source.pictures(range(9))[7]
    assert torch.equal(source.draw([alone]), many.x[7:8])
    assert source.pictures([10**9])[0].caption


def test_the_data_set_is_as_its_options_say():
    data = datasets.build({"name": "shapes", "number": 3, "size": 48, "seed": 4}).load()
    assert (data.x.shape, data.x.dtype) == ((3, 3, 48, 48), torch.uint8)
    assert len(data.texts) == 3
    assert data.texts != ShapesDataset(number=3, size=48).load().texts
    with pytest.raises(BadOption, match="size: must be at least 32"):
        ShapesDataset(size=16)
    with pytest.raises(BadOption, match="split"):
        ShapesDataset(split="test")


def test_captions_say_what_the_picture_shows(pictures):
    for picture in pictures:
        assert parse(picture.caption) == picture.said
        shown, said = picture.shown, picture.said
        assert said.relation in (None, shown.relation)
        for more, less in zip(shown.things, said.things, strict=True):
            assert (less.colour, less.shape, less.count) == (more.colour, more.shape, more.count)
            assert less.size in (None, more.size)
        assert [each.thing for each in picture.objects] == list(shown.objects)


def test_every_picture_belongs_to_its_split(pictures):
    asked = {picture.said.held_out() for picture in pictures}
    shown = {picture.shown.held_out() for picture in pictures}
    assert len(asked) == len(shown) == 1
    assert asked == shown


def test_objects_are_as_large_as_is_said_and_neither_touch_nor_leave_the_picture(pictures):
    for picture in pictures:
        boxes = []
        for each in picture.objects:
            low, high = RADII[each.thing.size]
            assert low <= each.radius <= high
            o = OUTLINES[each.thing.shape]
            box = (each.x - o.across * each.radius, each.y - o.up * each.radius,
                   each.x + o.across * each.radius, each.y + o.down * each.radius)  # fmt: skip
            assert min(box) >= 1.4
            assert max(box) <= SIDE - 1.4
            boxes.append(box)
        for i, a in enumerate(boxes):
            for b in boxes[:i]:
                assert max(b[0] - a[2], a[0] - b[2], b[1] - a[3], a[1] - b[3]) > 2.9


def test_things_stand_to_each_other_as_is_said(pictures):
    for picture in pictures:
        if len(picture.shown.things) == 2:
            one, other = picture.objects
            across, down = other.x - one.x, other.y - one.y
            away = {"left of": across, "right of": -across, "above": down, "below": -down}[picture.shown.relation]
            aside = down if picture.shown.relation in ("left of", "right of") else across
            assert away > 1.4 * abs(aside)


def test_everything_is_shown_and_said_as_often_as_it_should_be(pictures):
    n = len(pictures)
    kinds = Counter((len(p.shown.things), p.shown.things[0].count > 1) for p in pictures)
    assert kinds[1, False] / n == pytest.approx(0.35, abs=0.04)
    assert kinds[2, False] / n == pytest.approx(0.45, abs=0.04)
    sizes = Counter(t.size for p in pictures for t in p.shown.things)
    assert sizes["small"] / sizes.total() == pytest.approx(0.5, abs=0.04)
    counts = Counter(p.shown.things[0].count for p in pictures if p.shown.things[0].count > 1)
    assert set(counts) == {2, 3, 4}
    assert len({p.caption for p in pictures}) > 600


def test_captions_are_short_or_long_or_both_by_turns():
    for style, phrasings in (("short", short_captions), ("long", long_captions)):
        found = ShapesDataset(captions=style).pictures(range(200))
        assert all(p.caption in phrasings(p.said) for p in found)
    mixed = ShapesDataset().pictures(range(500))
    assert sum(p.caption in short_captions(p.said) for p in mixed) / 500 == pytest.approx(0.5, abs=0.08)
    every = ShapesDataset(captions="all").pictures(range(50))
    assert all(tuple(p.caption.splitlines()) == (*short_captions(p.said), *long_captions(p.said)) for p in every)
    assert [p.said for p in mixed] == [p.said for p in ShapesDataset(captions="long").pictures(range(500))]


@pytest.mark.parametrize(("most", "wanted"), [(1, {1}), (2, {1, 2}), (3, {1, 2, 3}), (4, {1, 2, 3, 4})])
def test_there_are_never_more_objects_than_asked_for(most, wanted):
    assert {len(p.objects) for p in ShapesDataset(most_objects=most).pictures(range(300))} == wanted


def test_pictures_can_be_had_of_any_scene_and_what_it_leaves_open_is_left_to_chance():
    scene = parse("a red circle and a blue square")
    x = show([scene] * 40)
    assert (x.shape, x.dtype) == ((40, 3, 64, 64), torch.uint8)
    assert torch.equal(show([scene] * 9, size=64), x[:9])
    assert not torch.equal(show([scene] * 9, seed=1), x[:9])
    red = (x[:, 0].float() - x[:, 1].float() > 90).flatten(1)
    assert red.any(1).all()
    assert red.sum(1).float().std() > 0.3 * red.sum(1).float().mean()  # small and large


def test_shares_are_as_the_options_say_and_leave_other_pictures_as_they_are():
    usual, source = ShapesDataset(), ShapesDataset(one=0.1, alike=0.3, sides_said=1.0)
    count = Counter()
    for before, now in zip(usual.pictures(range(2000)), source.pictures(range(2000)), strict=True):
        things = now.said.things
        count["two" if len(things) == 2 else "one" if things[0].count == 1 else "alike"] += 1
        if len(things) == 2:
            assert now.said.relation is not None
            if before.said.relation is not None:
                assert now == before
    for kind, share in {"one": 0.1, "two": 0.6, "alike": 0.3}.items():
        assert abs(count[kind] / 2000 - share) < 4 * (share * (1 - share) / 2000) ** 0.5
    assert all(
        picture.said.relation is None for picture in ShapesDataset(one=0, alike=0, sides_said=0).pictures([1, 2])
    )
    with pytest.raises(BadOption, match=r"at most 1 together, got 0\.9 and 0\.2"):
        ShapesDataset(one=0.9)
