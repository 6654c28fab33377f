import time

import numpy as np
import pytest
import torch
from PIL import Image

from unnoise.errors import BadOption, ShapeError
from unnoise.pictures import style
from unnoise.pictures.points import quiver, scatter
from unnoise.pictures.window import Window, ticks


def ink(picture: Image.Image, without: Image.Image) -> np.ndarray:
    """Where two pictures differ, and by how much."""
    return np.abs(np.asarray(picture).astype(int) - np.asarray(without).astype(int)).sum(-1)


def empty(size: int = 100, limits: object = 1.0) -> Image.Image:
    return scatter(np.zeros((0, 2)), size, limits)


def centre(weights: np.ndarray) -> tuple[float, float]:
    y, x = np.indices(weights.shape)
    return (x * weights).sum() / weights.sum() + 0.5, (y * weights).sum() / weights.sum() + 0.5


@pytest.mark.parametrize(
    ("point", "pixel"),
    [((0, 0), (50, 50)), ((0.5, 0), (75, 50)), ((0, 0.5), (50, 25)), ((-0.333, -0.777), (33.35, 88.85))],
)
def test_a_point_stands_where_the_limits_say_with_y_upwards(point, pixel):
    # A radius that no grid line of the paper shifts: the ink's weight is the same all over the dot but on the lines.
    weights = ink(scatter(torch.tensor([point]), 100, 1.0, radius=3), empty())
    assert centre(weights) == pytest.approx(pixel, abs=0.25)
    assert (weights > 0).sum() < 60


def test_limits_that_are_no_square_keep_one_scale():
    picture = scatter(np.array([[3.0, 1.0]]), 200, (0, 4, 0, 2), radius=3)
    assert picture.size == (200, 100)
    assert centre(ink(picture, empty(200, (0, 4, 0, 2)))) == pytest.approx((150, 50), abs=0.25)


def test_a_lone_point_has_the_colour_it_was_given_and_labels_have_their_own():
    opaque = np.zeros((200, 2))
    assert scatter(opaque, 100, 1.0, colour="#ff0000").getpixel((50, 50)) == (255, 0, 0)
    points = np.concatenate([opaque - 0.5, opaque + 0.5])
    labels = torch.arange(2).repeat_interleave(200)
    picture = scatter(points, 100, 1.0, labels=labels)
    assert picture.getpixel((25, 75)) == style.rgb(style.PALETTE[0])
    assert picture.getpixel((75, 25)) == style.rgb(style.PALETTE[1])


def test_the_background_is_fainter_than_the_points_and_sets_the_limits():
    cloud = np.array([[-1.0, -1.0], [1.0, 1.0]])
    far = np.array([[0.0, 50.0]])
    both = scatter(far, 100, background=cloud)
    assert ink(both, empty())[50, 50] == 0
    dark = ink(scatter(np.array([[0.5, 0.5]]), 100, 1.0), empty()).max()
    faint = ink(scatter(np.zeros((0, 2)), 100, 1.0, background=np.array([[0.5, 0.5]])), empty()).max()
    assert 0 < faint < dark / 2


def test_points_out_of_sight_are_counted_and_break_nothing():
    points = np.array([[0.0, 0.0], [5.0, 0.0], [np.nan, 0.0], [np.inf, -np.inf]])
    inside = scatter(points[:1], 200, 1.0)
    weights = ink(scatter(points, 200, 1.0), inside)
    assert (weights[:30, 100:] > 0).any()
    assert not (weights[40:] > 0).any()


def test_points_on_the_edge_are_cut_off_and_wrap_nowhere():
    weights = ink(scatter(np.array([[1.0, 0.5], [-1.0, -0.5]]), 100, 1.0, radius=4), empty())
    assert weights[15:35, 90:].any()
    assert weights[65:85, :10].any()
    assert not weights[:, 10:90].any()


def test_more_coordinates_show_the_first_two_and_one_gives_a_histogram():
    points = torch.randn(50, 5, generator=torch.Generator().manual_seed(0))
    assert np.array_equal(scatter(points), scatter(points[:, :2]))
    low = np.full((100, 1), -0.5)
    picture = scatter(low, 100, 1.0)
    assert picture.size == (100, 50)
    weights = ink(picture, scatter(np.zeros((0, 1)), 100, 1.0))
    assert weights[:, :50].any()
    assert not weights[:, 55:].any()
    outlined = scatter(low, 100, 1.0, background=-low)
    assert ink(outlined, picture)[:, 60:].any()


def test_two_thousand_points_are_fast():
    points = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0))
    times = []
    for _ in range(5):
        start = time.process_time()  # what others have of the processor meanwhile does not count
        scatter(points, limits=3.0)
        times.append(time.process_time() - start)
    assert min(times) < 0.1  # about 0.013


def test_an_arrow_points_its_way_and_a_greater_one_is_longer():
    def drawn(vector):
        picture = quiver(np.array([[0.1, 0.1]]), np.array([vector]), 200, 1.0, reference=1.0)
        weights = ink(picture, empty(200)) > 20
        y, x = np.nonzero(weights)
        return centre(weights), np.ptp(x), np.ptp(y), picture.getpixel((110, 90))

    (x, y), width, height, pale = drawn([1.0, 0.0])
    assert x > 111  # the head has more ink than the tail
    assert y == pytest.approx(90, abs=0.5)
    assert width > height
    (x, y), _, long, dark = drawn([0.0, 9.0])
    assert y < 89
    assert x == pytest.approx(110, abs=0.5)
    assert long == pytest.approx(width * 0.9 / 0.5, rel=0.1)
    assert dark != pale


def test_a_field_that_is_zero_or_infinite_draws_no_arrow():
    at, nothing = np.array([[0.5, 0.5], [0.3, 0.3]]), np.array([[0.0, 0.0], [np.inf, 1.0]])
    assert ink(quiver(at, nothing, 100, 1.0), empty()).max() < 60


def test_points_lie_behind_the_arrows():
    cloud = np.full((300, 2), 0.5)
    picture = quiver(np.array([[-0.5, -0.5]]), np.array([[1.0, 1.0]]), 100, 1.0, points=cloud)
    assert picture.getpixel((75, 25)) == style.rgb(style.FAINT)


def test_bad_input_says_what_was_expected():
    with pytest.raises(ShapeError, match=r"points of shape \(N, D\)"):
        scatter(np.zeros(3))
    with pytest.raises(ShapeError, match=r"labels of shape \(3,\), got \(2,\)"):
        scatter(np.zeros((3, 2)), labels=np.zeros(2))
    with pytest.raises(ShapeError, match=r"as the points, got \(4, 1\)"):
        scatter(np.zeros((3, 2)), background=np.zeros((4, 1)))
    with pytest.raises(BadOption, match="left < right"):
        scatter(np.zeros((3, 2)), limits=(1, -1, 0, 1))
    with pytest.raises(BadOption, match="radius: must be more than 0"):
        scatter(np.zeros((3, 2)), radius=0)
    with pytest.raises(ShapeError, match="positions and field of one shape"):
        quiver(np.zeros((3, 2)), np.zeros((2, 2)))
    with pytest.raises(BadOption, match="reference"):
        quiver(np.ones((3, 2)), np.ones((3, 2)), reference=0)


@pytest.mark.parametrize(("low", "high"), [(-1, 1), (0, 1e-3), (-1234, 99), (5.1, 5.2)])
def test_ticks_are_few_round_and_inside(low, high):
    values = ticks(low, high, 5)
    assert 2 <= len(values) <= 9
    assert all(low < value < high for value in values)
    assert len(set(np.round(np.diff(values), 9))) == 1


def test_all_equal_points_still_have_a_window():
    assert scatter(np.full((3, 2), 7.0)).size == (480, 480)
    assert Window(0, 1, 0, 1, 10).pixels(np.array([[0, 0], [1, 1]])).tolist() == [[0, 10], [10, 0]]
