"""What can be asked for, what is held out, and words that come back as what they were made of."""

from itertools import product

import pytest

from unnoise.data.scenes.scene import (
    COLOURS,
    HELD_OUT_ARRANGEMENTS,
    HELD_OUT_PAIRS,
    RELATIONS,
    SHAPES,
    SIZES,
    Scene,
    Thing,
    arrangements,
    single_things,
)
from unnoise.data.scenes.words import captions, long_captions, parse, short_captions
from unnoise.errors import BadOption, DataError

RED, BLUE = Thing("red", "circle", "small"), Thing("blue", "square", "large")


def every_scene():
    """Scenes with everything that can be said or left unsaid, of a few kinds."""
    sizes = (None, *SIZES)
    for colour, shape, size, count in product(COLOURS, SHAPES, sizes, (1, 2, 3, 4)):
        yield Scene((Thing(colour, shape, size, count),))
    for one, other, relation in product(sizes, sizes, (None, *RELATIONS)):
        yield Scene((Thing("orange", "cross", one), Thing("orange", "star", other)), relation)
        yield Scene((Thing("black", "ring", one), Thing("cyan", "triangle", other)), relation)


def test_every_phrasing_of_every_scene_is_read_back():
    for scene in every_scene():
        phrasings = captions(scene)
        assert len(set(phrasings)) == len(phrasings) >= 4
        for caption in phrasings:
            assert parse(caption) == scene, caption


def test_the_phrasing_of_the_issue_is_there():
    scene = Scene((RED, BLUE), "left of")
    assert "a small red circle left of a large blue square" in short_captions(scene)
    assert "there is a large blue square with a small red circle to its left" in long_captions(scene)
    assert "an orange star" in captions(Scene((Thing("orange", "star"),)))
    assert "three green triangles" in captions(Scene((Thing("green", "triangle", count=3),)))
    assert "two small black crosses" in captions(Scene((Thing("black", "cross", "small", 2),)))


@pytest.mark.parametrize(
    ("words", "scene"),
    [
        ("A Small RED circle, left of a LARGE blue square!", Scene((RED, BLUE), "left of")),
        ("big blue square under a tiny red circle", Scene((BLUE, RED), "below")),
        ("on the right a large blue square and on the left a small red circle", Scene((BLUE, RED), "right of")),
        ("a large blue square with a small red circle above it", Scene((RED, BLUE), "above")),
        ("2 small red circles", Scene((Thing("red", "circle", "small", 2),))),
        ("a red circle with a blue square", Scene((Thing("red", "circle"), Thing("blue", "square")))),
    ],
)
def test_what_people_write_is_understood(words, scene):
    assert parse(words) == scene


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("", "found 0"),
        ("a nice day", "found 0"),
        ("a red circle and a blue square and a green star", "found 3"),
        ("a red circle near a blue square", "the word 'near' is not understood"),
        ("a red circl and a blue square", "the word 'circl' is not understood here; did you mean 'circle'"),
        ("red circles", "say how many"),
        ("seven red circles", "'seven' is not understood"),
        ("9 red circles", "expected 1 to 4, got 9"),
        ("a red circle left of a red circle", "both are red circles"),
        ("two red circles left of a blue square", "only be asked for where there is one kind"),
        ("a red circle the blue square", "is no relation"),
        ("a red circle on the left", "only understood of two"),
    ],
)
def test_what_is_not_understood_is_refused_in_one_line(words, why):
    with pytest.raises(DataError, match=why) as error:
        parse(words)
    assert "\n" not in str(error.value)
    assert repr(words) in str(error.value)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Thing("mauve", "circle"), "colour: expected one of red"),
        (lambda: Thing("red", "blob"), "shape: expected"),
        (lambda: Thing("red", "circle", "medium"), "size: expected one of small, large, got"),
        (lambda: Thing("red", "circle", count=5), "count: expected 1 to 4"),
        (lambda: Scene(()), "expected one or two"),
        (lambda: Scene((RED,), "left of"), "relation: expected"),
        (lambda: Scene((RED, BLUE), "inside"), "relation: expected"),
    ],
)
def test_scenes_that_cannot_be_are_refused(make, why):
    with pytest.raises(BadOption, match=why):
        make()


def test_one_shape_of_every_colour_is_held_out_and_all_else_is_trained_on():
    assert sorted(colour for colour, _ in HELD_OUT_PAIRS) == sorted(COLOURS)
    assert {shape for _, shape in HELD_OUT_PAIRS} == set(SHAPES)
    assert {(t.colour, t.shape) for t in single_things("held_out")} == HELD_OUT_PAIRS
    assert len(single_things("train")) == len(COLOURS) * len(SHAPES) - len(HELD_OUT_PAIRS)


def test_no_trained_arrangement_is_held_out_whichever_way_it_is_said():
    train, held_out = arrangements("train"), arrangements("held_out")
    kinds = len(COLOURS) * len(SHAPES)
    assert len(train) + len(held_out) == kinds * (kinds - 1) * len(RELATIONS)
    assert not set(train) & set(held_out)
    for scene in train:
        one, other = scene.things
        assert not {(one.colour, one.shape), (other.colour, other.shape)} & HELD_OUT_PAIRS
        assert (one.shape, scene.relation, other.shape) not in HELD_OUT_ARRANGEMENTS
        assert (other.shape, RELATIONS[scene.relation], one.shape) not in HELD_OUT_ARRANGEMENTS
    # Everything that is held out is made of words that training knows.
    assert {t.colour for s in train for t in s.things} == set(COLOURS)
    assert {t.shape for s in train for t in s.things} == set(SHAPES)
    assert {s.relation for s in train} == set(RELATIONS)
