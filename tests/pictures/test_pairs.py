import numpy as np
import pytest
import torch

from unnoise.errors import BadOption, ShapeError
from unnoise.pictures import style
from unnoise.pictures.pairs import closest_pairs

RED, BLUE = (200, 10, 10), (10, 10, 200)


def plain(num, colour, height=8, width=8):
    return torch.tensor(colour, dtype=torch.uint8)[None, :, None, None].expand(num, 3, height, width)


def where(picture, colour):
    """The box of all pixels of this colour, as (top, left, bottom, right), and how many there are."""
    y, x = np.nonzero((np.asarray(picture) == colour).all(-1))
    return (y.min(), x.min(), y.max() + 1, x.max() + 1), len(y)


def test_a_sample_stands_beside_its_neighbour_at_the_same_height():
    picture = closest_pairs(plain(1, RED), plain(1, BLUE), ["0.01"])
    (top, left, bottom, right), count = where(picture, RED)
    (top_2, left_2, bottom_2, right_2), count_2 = where(picture, BLUE)
    assert (top, bottom) == (top_2, bottom_2)
    assert count == count_2 == (bottom - top) * (right - left) == (right_2 - left_2) * 96
    assert 0 < left_2 - right < 8


def test_captions_stand_under_the_pairs_and_headings_over_the_first_row_only():
    bare = np.asarray(closest_pairs(plain(2, RED), plain(2, BLUE), ["", ""], columns=1, headings=("", "")))
    full = np.asarray(closest_pairs(plain(2, RED), plain(2, BLUE), ["0.01, 0.1 of the second"] * 2, columns=1))
    (top, _, bottom, _), _ = where(bare, RED)
    assert (full[: top - 2] < 150).any()
    assert (bare[: top - 2] == style.rgb(style.PAPER)).all()
    inked = (full[bottom + 1 :] < 100).all(-1).any(1)
    assert inked.any()
    assert full.shape[0] > bare.shape[0] - 2
    assert full.shape[1] == bare.shape[1]


def test_many_pairs_fill_a_page_and_no_more():
    picture = closest_pairs(plain(20, RED), plain(20, BLUE), ["0.01"] * 20)
    assert picture.width <= 960
    assert where(picture, RED)[1] == 20 * 96**2


@pytest.mark.parametrize("shape", [(1, 28, 28), (2, 9, 7), (3, 300, 200), (4, 32, 32), (3, 1, 500)])
def test_images_of_any_size_and_number_of_channels_are_drawn(shape):
    images = torch.randint(0, 256, (3, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    picture = closest_pairs(images, images.double(), ["a", "b", "c"], images)
    assert picture.mode == "RGB"
    assert picture.width <= 1400
    assert picture.width > closest_pairs(images, images, ["a", "b", "c"], columns=1).width / 2


def test_white_images_are_seen_on_white_paper():
    picture = np.asarray(closest_pairs(plain(1, (255, 255, 255)), plain(1, (255, 255, 255)), [""], headings=("", "")))
    assert (picture == style.rgb(style.FRAME)).all(-1).sum() > 700


def test_what_does_not_match_is_named():
    with pytest.raises(ShapeError, match="got 2 and 1"):
        closest_pairs(plain(2, RED), plain(1, BLUE), ["a", "b"])
    with pytest.raises(ShapeError, match="got 0 and 0"):
        closest_pairs(plain(0, RED), plain(0, BLUE), [])
    with pytest.raises(BadOption, match="captions: expected 2"):
        closest_pairs(plain(2, RED), plain(2, BLUE), ["a"])
    with pytest.raises(BadOption, match="headings: expected 3"):
        closest_pairs(plain(1, RED), plain(1, BLUE), ["a"], plain(1, RED), headings=("a", "b"))
    with pytest.raises(BadOption, match="columns"):
        closest_pairs(plain(1, RED), plain(1, BLUE), ["a"], columns=0)
