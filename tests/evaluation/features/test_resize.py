import numpy as np
import pytest
import torch
from PIL import Image

from unnoise.evaluation.features.resize import centre_crop, in_colour, resized

FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def pictures(height, width):
    """One of noise and one that is smooth, shape (2, 3, H, W), uint8."""
    noise = torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    smooth = torch.outer(torch.linspace(0, 255, height), torch.linspace(1, 0, width)).to(torch.uint8)
    return torch.stack([noise, smooth.expand(3, -1, -1)])


@pytest.mark.parametrize("rule", list(FILTERS))
@pytest.mark.parametrize(
    ("before", "after"),
    [((64, 64), (32, 32)), ((50, 37), (224, 224)), ((128, 96), (40, 41)), ((64, 64), (224, 224)), ((7, 9), (7, 1))],
)
def test_a_picture_of_bytes_becomes_what_pillow_makes_of_it(rule, before, after):
    x = pictures(*before)
    for mine, picture in zip(resized(x, *after, rule, whole=True), x, strict=True):
        image = Image.fromarray(picture.permute(1, 2, 0).numpy()).resize(after[::-1], FILTERS[rule])
        assert torch.equal(mine, torch.from_numpy(np.array(image)).permute(2, 0, 1).float())


@pytest.mark.parametrize("rule", list(FILTERS))
def test_unrounded_values_are_those_of_pillow_to_one_level(rule):
    x = pictures(96, 64) // 2 + 64  # nothing leaves [0, 255] between the axes
    away = resized(x, 40, 41, rule) - resized(x, 40, 41, rule, whole=True)
    assert float(away.abs().max()) <= 1


def test_without_rounding_pillow_agrees_on_floats():
    x = pictures(40, 40)[:, :1]
    ours = resized(x, 299, 299, "bicubic")
    for mine, picture in zip(ours, x, strict=True):
        image = Image.fromarray(picture[0].float().numpy()).resize((299, 299), Image.Resampling.BICUBIC)
        torch.testing.assert_close(mine[0], torch.from_numpy(np.array(image)).clamp(0, 255), rtol=0, atol=3e-3)


def test_tensorflow_aligns_the_corners_of_the_first_pixels_and_repeats_the_last():
    x = torch.tensor([0.0, 10.0, 40.0]).expand(1, 1, 3, 3)
    row = resized(x, 6, 6, "tensorflow")[0, 0, 0]  # at the places 0, 0.5, 1, 1.5, 2, 2.5
    torch.testing.assert_close(row, torch.tensor([0.0, 5.0, 10.0, 25.0, 40.0, 40.0]))
    row = resized(x, 2, 2, "tensorflow")[0, 0, 0]  # at 0 and 1.5: nothing is averaged
    torch.testing.assert_close(row, torch.tensor([0.0, 25.0]))


def test_tensorflow_treats_rows_and_columns_alike():
    x = pictures(31, 31)
    torch.testing.assert_close(
        resized(x, 299, 299, "tensorflow").mT, resized(x.mT, 299, 299, "tensorflow"), rtol=0, atol=1e-4
    )


def test_a_picture_of_the_right_size_stays_as_it_is():
    x = pictures(16, 16)
    for rule in ("bicubic", "bilinear", "tensorflow"):
        assert torch.equal(resized(x, 16, 16, rule), x.float())


def test_the_crop_is_the_middle():
    x = torch.arange(25.0).reshape(1, 1, 5, 5)
    assert torch.equal(centre_crop(x, 3)[0, 0], x[0, 0, 1:4, 1:4])


def test_grey_is_repeated_and_transparency_lies_on_white():
    grey = torch.tensor([7, 9], dtype=torch.uint8).reshape(1, 1, 1, 2)
    assert torch.equal(in_colour(grey), torch.tensor([[7.0, 9.0]]).expand(1, 3, 1, 2))
    clear = torch.tensor([10, 20, 30, 0], dtype=torch.uint8).reshape(1, 4, 1, 1)
    half = torch.tensor([10, 20, 30, 51], dtype=torch.uint8).reshape(1, 4, 1, 1)
    assert in_colour(clear).flatten().tolist() == [255, 255, 255]
    assert in_colour(half).flatten().tolist() == [206, 208, 210]  # 255 - 0.2 * (255 - c)
