"""Lines in bands."""

import numpy as np
import pytest

from unnoise.errors import ShapeError
from unnoise.pictures import style
from unnoise.pictures.bands import bands


def coloured(picture, colour):
    pixels = np.asarray(picture, dtype=int)
    return (np.abs(pixels - np.array(style.rgb(colour))).sum(-1) < 12).any(0)


def test_every_panel_has_its_own_line_and_a_wider_interval_a_wider_band():
    x = [10, 100, 1000]
    narrow, wide = [[(1.0, 1.0 - w, 1.0 + w) for _ in x] for w in (0.01, 0.5)]
    picture = bands(x, {"FID": narrow, "KID": wide}, xlabel="samples")
    left, right = np.array_split(coloured(picture, style.PALETTE[0]), 2)
    assert left.any()
    assert not right.any()
    left, right = np.array_split(coloured(picture, style.PALETTE[1]), 2)
    assert right.any()
    assert not left.any()


def test_panels_that_do_not_fit_are_refused():
    with pytest.raises(ShapeError, match="KID"):
        bands([1, 2], {"KID": [(1.0, 0.0, 2.0)]})
    with pytest.raises(ShapeError, match="at least one"):
        bands([1, 2], {})
