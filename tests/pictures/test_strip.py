import numpy as np
import pytest
from PIL import Image

from unnoise.errors import BadOption
from unnoise.pictures import style
from unnoise.pictures.strip import stack, strip

FRAMES = [Image.new("RGB", (100, 80), (200, 0, 0)), Image.new("L", (100, 80), 30)]
PAPER = style.rgb(style.PAPER)


def test_frames_stand_in_a_row_and_captions_put_ink_only_under_their_own():
    bare = strip(FRAMES)
    assert bare.size == (3 * style.GAP + 200, 2 * style.GAP + 80)
    picture = np.asarray(strip(FRAMES, ["t = 0.25\nᾱ = 0.5\nSNR = 1", ""]))
    below = style.GAP + 80
    np.testing.assert_array_equal(picture[:below], np.asarray(bare)[:below])
    assert (picture[style.GAP : below, style.GAP : style.GAP + 100] == (200, 0, 0)).all()
    assert (picture[style.GAP : below, 2 * style.GAP + 100 : -style.GAP] == 30).all()
    left, right = picture[below:, : style.GAP + 100], picture[below:, style.GAP + 100 :]
    assert (left != PAPER).any()
    assert (right == PAPER).all()


def test_more_lines_of_caption_make_a_higher_strip():
    one, three = strip(FRAMES, ["a", "b"]), strip(FRAMES, ["a", "b\nb\nb"])
    assert three.height - one.height == 2 * style.line_height(style.TEXT)


def test_a_long_caption_widens_its_column_instead_of_being_cut():
    assert strip(FRAMES, ["a very long caption indeed, longer than its frame", ""]).width > strip(FRAMES).width + 100


def test_a_title_stands_above_the_whole_row():
    bare, titled = strip(FRAMES), strip(FRAMES, title="gypsy")
    above = titled.height - bare.height
    assert above > 0
    np.testing.assert_array_equal(np.asarray(titled)[above + style.GAP :], np.asarray(bare)[style.GAP :])
    title = np.asarray(titled)[: above + style.GAP]
    assert (title.min((1, 2))[-3:] == 255).all()  # descenders end above the frames
    assert (title < 100).any()


def test_rows_are_stacked_flush_left_on_paper():
    rows = [Image.new("RGB", (50, 20), (1, 2, 3)), Image.new("RGB", (90, 30), (4, 5, 6))]
    sheet = np.asarray(stack(rows))
    assert sheet.shape == (50, 90, 3)
    assert (sheet[:20, :50] == (1, 2, 3)).all()
    assert (sheet[:20, 50:] == PAPER).all()
    assert (sheet[20:] == (4, 5, 6)).all()
    assert stack(rows, ["linear", ""]).height > 50


def test_as_many_captions_and_titles_as_pictures():
    with pytest.raises(BadOption, match="got 1 for 2"):
        strip(FRAMES, ["a"])
    with pytest.raises(BadOption, match="got 0 for 0"):
        strip([])
    with pytest.raises(BadOption, match="got 3 for 2"):
        stack(FRAMES, ["a", "b", "c"])
