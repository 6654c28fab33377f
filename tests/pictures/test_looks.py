import numpy as np
import pytest
from PIL import Image

from unnoise.errors import ShapeError
from unnoise.pictures import style
from unnoise.pictures.looks import ACROSS, SIDE, _sharpness, word_maps

RED = Image.new("RGB", (8, 8), (200, 20, 20))


def test_where_a_word_is_read_the_picture_shows_and_elsewhere_it_is_veiled():
    maps = np.zeros((1, 8, 8))
    maps[0, :, 4:] = 1.0
    sheet = np.asarray(word_maps(RED, maps, ["red"])).astype(int)
    top = style.GAP + SIDE // 2
    second = 2 * style.GAP + SIDE if SIDE * 3 // 64 < style.GAP else None
    red = np.flatnonzero((sheet[top] == (200, 20, 20)).all(axis=1))
    # The whole of the picture itself, and the right part of the one under its veil.
    assert 1.3 * SIDE < len(red) < 1.6 * SIDE
    assert second is None or red.max() > second + 0.9 * SIDE


def test_every_word_has_its_picture_and_rows_are_not_too_long():
    few = word_maps(RED, np.ones((2, 4, 4)), ["a", "b"])
    many = word_maps(RED, np.random.default_rng(0).random((2 * ACROSS, 4, 4)), [f"word {i}" for i in range(2 * ACROSS)])
    assert many.width > few.width
    assert many.height > 2.9 * few.height
    titled = word_maps(RED, np.ones((2, 4, 4)), ["a", "b"], title="what is read")
    assert titled.height > few.height


def test_a_word_that_is_read_nearly_alike_everywhere_stays_under_its_veil():
    flat, steep = np.ones((1, 8, 8)), np.ones((1, 8, 8))
    flat[0, :, 4:] = 1.05  # a tenth of the half of the mean
    steep[0, :, 4:] = 3.0
    red = []
    for maps in (flat, steep):
        sheet = np.asarray(word_maps(RED, maps, ["red"])).astype(int)
        row = sheet[style.GAP + SIDE // 2]
        red.append(int((row == (200, 20, 20)).all(axis=1).sum()))
    assert red[0] < 1.1 * SIDE < 1.3 * SIDE < red[1]  # the picture itself, and half of the one under a veil


def test_how_much_more_a_word_is_read_is_told_to_two_decimals():
    weights = np.ones((4, 4))
    weights[0, 0] = 1.04
    assert _sharpness(weights) == "up to 1.04 x"
    assert _sharpness(np.zeros((4, 4))) == "not read"


def test_a_word_that_is_read_nowhere_is_drawn_too():
    word_maps(RED, np.zeros((1, 4, 4)), ["nothing"])


@pytest.mark.parametrize(
    ("maps", "said"),
    [
        (np.ones((3, 4, 4)), r"of shape \(2, H, W\)"),
        (np.ones((2, 4)), "one for each word"),
        (-np.ones((2, 4, 4)), "not negative"),
    ],
)
def test_maps_that_do_not_fit_are_refused(maps, said):
    with pytest.raises(ShapeError, match=said):
        word_maps(RED, maps, ["a", "b"])
