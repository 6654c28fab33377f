import sys

import numpy as np
import pytest

from unnoise.errors import BadOption, MissingExtra, ShapeError
from unnoise.pictures import style
from unnoise.pictures.distances import nearest_distances
from unnoise.pictures.intervals import extrapolation, interval_plot, interval_rows

NAN = float("nan")


@pytest.fixture(autouse=True)
def _matplotlib(request):
    if "missing" not in request.node.name:
        pytest.importorskip("matplotlib")


def near(picture, colour):
    return np.abs(np.asarray(picture).astype(int) - style.rgb(colour)).max(-1) < 12


def test_a_dot_stands_further_right_for_a_larger_number_and_rows_go_down():
    picture = interval_rows([("a", 1.0, 0.9, 1.1), ("b", 2.0, 1.9, 2.1)])
    (y_a, x_a), (y_b, x_b) = (np.argwhere(near(picture, style.PALETTE[i])).mean(0) for i in (0, 1))
    assert x_a < x_b
    assert y_a < y_b


def test_a_wider_interval_is_drawn_wider():
    def width(low, high):
        picture = np.asarray(interval_rows([("a", 1.0, low, high), ("b", 0.0, 0.0, 2.0)])).astype(int)
        blue = (picture[..., 2] - picture[..., 0] > 40) & (picture[..., 2] > 150)
        return np.ptp(np.nonzero(blue)[1])

    assert width(0.5, 1.5) > 1.8 * width(0.8, 1.2)


def test_every_row_adds_the_same_height_and_every_panel_stands_beside_the_others():
    heights = [interval_rows([("a", 1.0, 0.5, 2.0)] * n).height for n in (3, 4, 5)]
    assert abs(heights[2] - 2 * heights[1] + heights[0]) <= 1
    one, two = ({str(k): [(1.0, 0.5, 2.0)] for k in range(n)} for n in (1, 2))
    assert interval_plot(["a"], two).width > interval_plot(["a"], one).width


def test_gaps_infinite_ends_decades_and_references_are_borne():
    picture = interval_plot(
        ["a", "b", "c", "d"],
        {"FID": [(5, 4, 6), (500, 400, 600), None, (7, -np.inf, np.inf)], "KID": [(NAN, 0, 1), (0.1, 0, 0.2), None, None]},
        better={"FID": "lower"}, references={"FID": 2.0, "KID": 0.0}, title="title",
    )  # fmt: skip
    assert near(picture, style.PALETTE[3]).sum() > 20
    assert near(picture, style.PALETTE[2]).sum() == 0
    assert interval_plot(["a"], {"FID": [None]}).width > 0


def test_the_line_of_an_extrapolation_ends_at_its_limit():
    curve = [(n, 5 + 3000 / n) for n in (1000, 2000, 5000)]
    picture = extrapolation(curve, 5.0, (4.7, 5.3), name="FID")
    blue, orange = (np.argwhere(near(picture, style.PALETTE[i])) for i in (0, 1))
    below_legend = orange[orange[:, 0] > 150]
    assert below_legend[:, 1].mean() < 150  # at the left, where there are endlessly many samples
    assert below_legend[:, 0].mean() > blue[blue[:, 0] > 150][:, 0].mean()  # lower than any of fewer
    assert extrapolation(curve, 5.0, (NAN, NAN)).size == picture.size
    assert extrapolation([[100, 1.0]], 0.5, (0, 1)).size[0] > 0


def test_copies_stand_left_of_all_other_data():
    rng = np.random.default_rng(0)
    other = rng.uniform(9, 11, 500)
    copied, fresh = rng.uniform(0.01, 0.02, 500), rng.uniform(9, 11, 500)

    def middle(made):
        picture = np.asarray(nearest_distances({"pixels": (made, other, "held-out data")})).astype(int)
        blue = (picture[..., 2] - picture[..., 0] > 50) & (np.arange(len(picture))[:, None] > 100)
        return np.nonzero(blue)[1].mean() / picture.shape[1]

    assert middle(copied) < 0.3
    assert middle(fresh) > 0.4


@pytest.mark.parametrize(
    "made", [np.zeros(5), np.array([0.0, 1.0]), np.ones(7), np.array([1e-12, 5.0, NAN]), np.zeros(0)]
)
def test_distances_of_any_kind_are_drawn(made):
    one = nearest_distances({"pixels": (made, np.ones(3), "held-out data")})
    two = nearest_distances({k: (made, made, "held-out data") for k in ("pixels", "features")}, title="two")
    assert two.width > one.width


def test_what_does_not_match_is_named():
    with pytest.raises(ShapeError, match="expected 2 intervals of FID, one for each name, got 1"):
        interval_plot(["a", "b"], {"FID": [(1, 0, 2)]})
    with pytest.raises(BadOption, match="got 1 of 0"):
        interval_rows([])
    with pytest.raises(ShapeError, match="at least one"):
        extrapolation([], 1.0, (0, 2))
    with pytest.raises(BadOption, match="at least one space"):
        nearest_distances({})
    with pytest.raises(ShapeError, match="distances in pixels"):
        nearest_distances({"pixels": (np.ones((2, 2)), np.ones(2), "held-out data")})


@pytest.mark.parametrize(
    "draw",
    [
        lambda: interval_rows([("a", 1.0, 0.0, 2.0)]),
        lambda: extrapolation([(10, 1.0)], 0.5, (0, 1)),
        lambda: nearest_distances({"pixels": ([1.0], [1.0], "held-out data")}),
    ],
)
def test_a_missing_matplotlib_names_its_extra(monkeypatch, draw):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtra, match=r"drawing curves needs matplotlib.*pip install 'unnoise\[plot\]'"):
        draw()
