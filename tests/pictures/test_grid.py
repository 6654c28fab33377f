import numpy as np
import pytest
import torch

from unnoise.errors import BadOption, DataError, ShapeError
from unnoise.pictures import style
from unnoise.pictures.grid import image_grid, to_images

PAPER = style.rgb(style.PAPER)


def test_every_pixel_of_the_grid_stands_where_its_image_says():
    images = torch.randint(0, 256, (5, 3, 4, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    sheet = np.asarray(image_grid(images, columns=3, scale=2, gap=5))
    assert sheet.shape == (5 + 2 * (8 + 5), 5 + 3 * (12 + 5), 3)
    expected = np.full_like(sheet, PAPER)
    for i, image in enumerate(images.numpy()):
        y, x = 5 + i // 3 * 13, 5 + i % 3 * 17
        expected[y : y + 8, x : x + 12] = image.transpose(1, 2, 0).repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(sheet, expected)


def test_floats_are_rounded_and_clamped():
    image = torch.tensor([[-3.0, 0.4], [254.6, 300.0]])[None, None]
    assert np.asarray(to_images(image)[0]).tolist() == [[0, 0], [255, 255]]
    assert to_images(image)[0].mode == "L"


@pytest.mark.parametrize(
    ("channels", "mode", "width"), [(1, "L", 4), (3, "RGB", 4), (4, "RGBA", 4), (2, "L", 8), (5, "L", 20)]
)
def test_channels_give_a_mode_or_stand_side_by_side(channels, mode, width):
    images = torch.arange(channels, dtype=torch.uint8)[None, :, None, None].expand(2, -1, 3, 4)
    pictures = to_images(images)
    assert [(picture.mode, picture.size) for picture in pictures] == [(mode, (width, 3))] * 2
    if mode == "L":
        assert np.asarray(pictures[0])[0].tolist() == [i for i in range(channels) for _ in range(4)]


def test_transparency_shows_the_paper():
    image = torch.tensor([10, 20, 30, 0], dtype=torch.uint8)[None, :, None, None]
    assert image_grid(image, scale=1, gap=0).getpixel((0, 0)) == PAPER


@pytest.mark.parametrize(("num", "columns"), [(1, 1), (3, 3), (10, 5), (16, 4), (60, 10), (64, 8)])
def test_the_grid_is_near_a_square_and_leaves_few_cells_empty(num, columns):
    assert image_grid(torch.zeros(num, 1, 8, 8, dtype=torch.uint8), scale=1, gap=0).width == columns * 8


def test_small_images_are_enlarged_and_large_ones_are_not():
    assert image_grid(torch.zeros(1, 1, 8, 8), gap=0).size == (80, 80)
    assert image_grid(torch.zeros(1, 1, 128, 96), gap=0).size == (96, 128)


def test_captions_put_ink_under_their_image_and_leave_the_image_alone():
    images = torch.full((2, 1, 8, 8), 90, dtype=torch.uint8)
    sheet = np.asarray(
        image_grid(images, columns=2, scale=10, gap=4, captions=["", "a long prompt about a red circle"])
    )
    assert sheet.shape[0] > 88
    assert (sheet[4:84, 4:84] == 90).all()
    assert (sheet[84:, :84] == PAPER).all()
    assert (sheet[84:, 88:] < 128).any()
    assert (sheet[84:, 168:] == PAPER).all()


def test_bad_batches_say_what_was_expected():
    with pytest.raises(ShapeError, match=r"\(N, C, H, W\), got \(3, 8, 8\)"):
        to_images(torch.zeros(3, 8, 8))
    with pytest.raises(ShapeError, match="at least one image"):
        image_grid(torch.zeros(0, 1, 8, 8))
    with pytest.raises(DataError, match="1 of 2 images"):
        to_images(torch.tensor([0.0, float("nan")]).reshape(2, 1, 1, 1))
    with pytest.raises(BadOption, match="expected 2, one for each image, got 1"):
        image_grid(torch.zeros(2, 1, 8, 8), captions=["x"])
    with pytest.raises(BadOption, match="scale: must be at least 1, got 0"):
        image_grid(torch.zeros(2, 1, 8, 8), scale=0)
