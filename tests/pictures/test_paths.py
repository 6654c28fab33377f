"""Paths in the plane."""

import numpy as np
import pytest
import torch

from unnoise.errors import ShapeError
from unnoise.pictures import style
from unnoise.pictures.paths import paths


def near(picture, colour):
    """Which pixels have about a colour, shape (height, width)."""
    return (np.abs(np.asarray(picture).astype(int) - style.rgb(colour)) < 40).all(-1)


def test_each_point_has_a_line_of_its_own_colour_from_a_ring_to_a_dot():
    ways = torch.tensor([[[-0.8, -0.5], [-0.8, 0.5]], [[0.0, -0.5], [0.0, 0.5]], [[0.8, -0.5], [0.8, 0.5]]])
    picture = paths(ways, size=900, limits=1.0)
    assert picture.size == (900, 900)
    # Row 225 is y = 0.5, the second point; row 675 is y = -0.5, the first.
    for row, colour in ((675, style.PALETTE[0]), (225, style.PALETTE[1])):
        columns = np.flatnonzero(near(picture, colour)[row - 1 : row + 1].any(0))
        assert columns.min() == pytest.approx(90, abs=9)
        assert columns.max() == pytest.approx(810, abs=9)
        assert near(picture, style.PAPER)[row, 90]
        assert near(picture, style.INK)[row, 810]
    assert not near(picture, style.PALETTE[1])[450:].any()


def test_the_data_stands_behind_and_sets_the_window():
    ways = np.full((3, 1, 2), 100.0)
    picture = paths(ways, size=200, background=np.array([[0.0, 0.0], [1.0, 1.0]]))
    assert not near(picture, style.PALETTE[0]).any()
    assert near(picture, style.FAINT).sum() > 2


@pytest.mark.parametrize("shape", [(3, 2), (0, 3, 2), (2, 3, 1)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ShapeError, match=r"\(K, N, D\)"):
        paths(np.zeros(shape))
