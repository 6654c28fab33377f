import numpy as np
import pytest
from PIL import Image

from unnoise.pictures import style


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ᾱ = 0.5", "alpha-bar = 0.5"),
        ("α\u0304²", "alpha-bar^2"),
        ("σ → ∞", "sigma -> inf"),
        ("x₀ − ε", "x0 - epsilon"),
        ("Σ größer à", "Sigma grosser a"),
        ("中 ok", "? ok"),
        ("±5·…", "±5·…"),
    ],
)
def test_text_is_spelled_in_characters_that_the_typeface_has(text, shown):
    assert style.spelled(text) == shown


def test_long_text_is_wrapped_and_cut_to_its_width():
    lines = style.wrapped("one two three four five sixsixsixsixsixsixsix", 12, 60, 3)
    assert len(lines) == 3
    assert all(style.text_width(line, 12) <= 60 for line in lines)
    assert lines[-1].endswith("…")
    assert style.wrapped("short", 12, 60, 3) == ["short"]


def test_the_ramp_begins_and_ends_at_its_ends():
    assert style.ramp(np.array([0.0, 1.0])).tolist() == [
        list(style.rgb(style.RAMP[0])),
        list(style.rgb(style.RAMP[-1])),
    ]


def test_what_is_transparent_shows_the_paper():
    assert style.on_paper(Image.new("RGBA", (1, 1), (0, 0, 0, 0))).getpixel((0, 0)) == style.rgb(style.PAPER)
    assert style.on_paper(Image.new("L", (1, 1), 7)).getpixel((0, 0)) == (7, 7, 7)
