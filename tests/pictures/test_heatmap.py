import numpy as np
import pytest
from PIL import Image

from unnoise.errors import BadOption, ShapeError
from unnoise.pictures import style
from unnoise.pictures.heatmap import heatmap, number, picture_matrix

NAN = float("nan")


def where(picture, colour):
    """The box of all pixels of this colour, as (top, left, bottom, right)."""
    y, x = np.nonzero((np.asarray(picture) == style.rgb(colour)).all(-1))
    return (y.min(), x.min(), y.max() + 1, x.max() + 1) if len(y) else None


def test_pictures_stand_in_the_row_and_the_column_that_they_belong_to():
    colours = [["#c80a0a", "#0ac80a"], ["#0a0ac8", "#c8c80a"]]
    cells = [[Image.new("RGB", (60, 40), colour) for colour in row] for row in colours]
    picture = picture_matrix(cells, ["a", "b"], ["5", "10"], "guidance", "steps", title="digits")
    box = {colour: where(picture, colour) for row in colours for colour in row}
    assert all((b[2] - b[0], b[3] - b[1]) == (40, 60) for b in box.values())
    (a, b), (c, d) = [[box[colour] for colour in row] for row in colours]
    assert a[0] == b[0] < c[0] == d[0]
    assert a[1] == c[1] < b[1] == d[1]
    inside = np.asarray(picture)[:, a[1] :]
    assert (inside[a[0] :] < 60).all(-1).sum() == 0  # every word stands beside or above the pictures


def test_a_missing_picture_leaves_a_pale_gap():
    picture = picture_matrix([[Image.new("RGB", (60, 40), "#c80a0a"), None]], [""], ["a", "b"])
    top, left, bottom, right = where(picture, style.WASH)
    assert (bottom - top, right - left) == (40, 60)


def test_long_headings_widen_the_sheet_instead_of_being_cut():
    cell = Image.new("RGB", (20, 20), "#c80a0a")
    short = picture_matrix([[cell]], ["a"], ["b"])
    wide = picture_matrix(
        [[cell]], ["a heading of a row"], ["a heading of a column"], "y", "what the columns differ in"
    )
    assert wide.width > short.width + 200
    edges = np.asarray(wide)[:, [0, 1, 2, -3, -2, -1]]
    assert (edges == style.rgb(style.PAPER)).all()
    tall = picture_matrix([[cell]], ["a"], ["b"], ylabel="a long upright label")
    assert (np.asarray(tall)[[0, 1, -2, -1]] == style.rgb(style.PAPER)).all()


def test_the_best_number_is_framed_and_darkest_whichever_way_is_better():
    values = [[3.0, 1.0], [2.0, 4.0]]
    for better, row, column in (("lower", 0, 1), ("higher", 1, 1)):
        picture = heatmap(values, ["a", "b"], ["c", "d"], better=better)
        top, left, bottom, right = where(picture, style.PALETTE[1])
        whole = where(
            heatmap([[1.0] * 2] * 2, ["a", "b"], ["c", "d"]), "#2f6db3"
        )  # equal numbers have the middle colour
        assert (top > whole[0] + 50) == (row == 1)
        assert (left > whole[3] - 100) == (column == 1)
        inside = np.asarray(picture)[top + 6, left + 6]
        np.testing.assert_array_equal(inside, style.rgb(style.RAMP[-1]))
        assert (bottom - top, right - left) == (56, 92)
    assert where(heatmap(values, ["a", "b"], ["c", "d"]), style.PALETTE[1]) is None


def test_numbers_over_decades_are_coloured_by_their_logarithm():
    picture = np.asarray(heatmap([[1.0, 10.0, 100.0]], [""], ["a", "b", "c"]))
    straight = np.asarray(heatmap([[-1.0, 0.0, 1.0]], [""], ["a", "b", "c"]))
    top, left, _, _ = where(Image.fromarray(picture), style.RAMP[0])
    np.testing.assert_array_equal(picture[top + 2, left + 97], style.rgb(style.RAMP[2]))
    np.testing.assert_array_equal(straight[top + 2, left + 97], style.rgb(style.RAMP[2]))


def test_half_widths_are_written_under_the_numbers_and_gaps_stay_pale():
    values = np.array([[1.0, NAN]])
    bare, full = heatmap(values, [""], ["a", "b"]), heatmap(values, [""], ["a", "b"], half_widths=[[0.1, NAN]])
    assert where(bare, style.WASH) is not None
    assert full.size != bare.size or np.any(np.asarray(full) != np.asarray(bare))
    assert heatmap([[NAN, np.inf]], [""], ["a", "b"], better="lower").height < bare.height  # no colours to explain


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.00"), (1.0, "1.00"), (12.34, "12.3"), (123.4, "123"), (0.01234, "0.0123"), (4.2e-6, "4.2e-6"), (-7.123, "-7.12"),
     (1.5e7, "1.5e7"), (99.96, "100")],
)  # fmt: skip
def test_numbers_have_about_three_digits(value, text):
    assert number(value) == text


def test_what_does_not_match_is_named():
    with pytest.raises(ShapeError, match=r"expected values of shape \(1, 2\), as the headings say, got \(1, 1\)"):
        heatmap([[1.0]], ["a"], ["b", "c"])
    with pytest.raises(ShapeError, match="half_widths"):
        heatmap([[1.0]], ["a"], ["b"], half_widths=[[1.0, 2.0]])
    with pytest.raises(BadOption, match="better"):
        heatmap([[1.0]], ["a"], ["b"], better="more")
    with pytest.raises(ShapeError, match="got 1 rows of 1"):
        picture_matrix([[None]], ["a"], ["b"])
    with pytest.raises(ShapeError, match="expected cells in 2 rows of 1"):
        picture_matrix([[Image.new("L", (4, 4))]], ["a", "b"], ["c"])
