"""Whether pictures show what was asked for: right by right pictures, and every kind of mistake is the one it is."""

import pytest

from unnoise.data.scenes.scene import Scene, Thing
from unnoise.data.scenes.words import parse
from unnoise.data.shapes import ShapesDataset, show
from unnoise.errors import BadOption, DataError, ShapeError
from unnoise.evaluation.adherence import share
from unnoise.evaluation.scenes.judging import adherence, over_settings

ASKED = "a small red circle left of a large blue square"


def shown(*captions):
    """Pictures that show what captions say."""
    return show([parse(caption) for caption in captions])


def marks(asked, caption):
    (found,) = adherence(shown(caption), [asked]).marks
    return found


def wrong(found):
    return {name for name, value in vars(found).items() if value is False}


@pytest.mark.parametrize(
    ("caption", "faults"),
    [
        (ASKED, set()),
        ("a large blue square right of a small red circle", set()),
        ("a small red circle left of a large blue circle", {"shape", "size", "relation"}),
        ("a small green circle left of a large blue square", {"colour", "size", "relation"}),
        ("a large red circle left of a large blue square", {"size"}),
        ("a small red circle right of a large blue square", {"relation"}),
        ("a small red circle above a large blue square", {"relation"}),
        ("a small red circle", {"colour", "shape", "size", "relation", "count"}),
        ("a small red square left of a large blue circle", {"size", "relation", "bound"}),
        ("a large red circle left of a small blue square", {"size", "bound"}),
        ("three small red circles", {"colour", "shape", "size", "relation", "count"}),
    ],
)
def test_every_mistake_is_called_what_it_is(caption, faults):
    found = marks(ASKED, caption)
    assert wrong(found) == (faults | {"everything"} if faults else set())


def test_what_was_not_asked_is_not_judged():
    found = marks("a red circle and a blue square", "a large red circle above a small blue square")
    assert (found.size, found.relation, found.everything) == (None, None, True)
    assert marks("three green triangles", "three small green triangles").bound is None
    assert wrong(marks("three green triangles", "four small green triangles")) == {"count", "everything"}
    assert wrong(marks("three green triangles", "two large green triangles")) == {
        "colour", "shape", "count", "everything",
    }  # fmt: skip


def test_pictures_of_the_data_set_show_what_their_captions_say():
    for split in ("train", "held_out"):
        data = ShapesDataset(number=160, split=split, seed=3).load()
        found = adherence(data.x, data.texts)
        assert found.shares["everything"].value >= 0.99
        assert set(found.groups) == {"one object", "two things", "several alike"}
        assert sum(group["everything"].trials for group in found.groups.values()) == 160


def test_pictures_of_other_captions_do_not():
    data = ShapesDataset(number=160, seed=3).load()
    found = adherence(data.x, data.texts[1:] + data.texts[:1])
    assert found.shares["everything"].value < 0.02
    assert found.shares["colour"].value < 0.3


def test_shares_are_those_of_the_pictures_in_which_it_was_asked():
    swapped = "a small red square left of a large blue circle"
    pictures = shown(ASKED, ASKED, swapped, "a large green star", "a small green star")
    found = adherence(pictures, [ASKED, ASKED, ASKED, "green star", "a large green star"])
    assert found.shares["everything"] == share(3, 5)
    assert found.shares["relation"] == share(2, 3)
    assert found.shares["size"] == share(2, 4)
    assert found.binding_errors == share(1, 3)
    assert found.groups["one object"]["everything"] == share(1, 2)
    assert found.as_dict()["binding errors"]["n"] == 3
    assert adherence(pictures[3:4], ["green star"]).binding_errors is None


def test_a_table_over_settings_asks_for_every_setting_once():
    prompts, asked = ["a small red circle", "two large blue squares"], []

    def sample(prompts, guidance, steps):
        asked.append((guidance, steps))
        return shown(*(p if guidance > 1 else "a large black star" for p in prompts))

    told = []
    found = over_settings(sample, prompts, [1.0, 3.0], [5, 10], lambda *args: told.append(args))
    assert asked == list(found) == [(1.0, 5), (1.0, 10), (3.0, 5), (3.0, 10)]
    assert [each.shares["everything"].value for each in found.values()] == [0, 0, 1, 1]
    assert told[0] == (0, 4)
    assert told[-1] == (4, 4)


def test_bad_requests_are_refused_before_anything_is_made():
    def never(*_):
        raise AssertionError

    with pytest.raises(DataError, match="elephant"):
        over_settings(never, ["a red circle", "a red elephant"], [1.0], [5])
    with pytest.raises(BadOption, match="at least one value"):
        over_settings(never, ["a red circle"], [], [5])
    with pytest.raises(ShapeError, match="a prompt for each of 1 pictures, at least one, got 2"):
        adherence(shown(ASKED), [ASKED, ASKED])
    assert adherence(shown(ASKED), [Scene((Thing("red", "circle"),))]).shares["count"].value == 0
