"""The meters of too much guidance: colours that are too strong, pixels that are cut off."""

import pytest
import torch

from unnoise.errors import DataError, ShapeError
from unnoise.evaluation.metrics.base import Cloud, metrics

SHAPE = (3, 8, 8)


def pictures(n, strength=1.0, seed=0):
    """Colour pictures in [-1, 1] whose colours are so many times as far from grey."""
    generator = torch.Generator().manual_seed(seed)
    grey = 0.4 * torch.rand(n, 1, 8, 8, generator=generator) - 0.2
    colour = 0.6 * torch.rand(n, 3, 8, 8, generator=generator) - 0.3
    return grey + strength * colour


def cloud(x):
    return Cloud(x.clamp(-1, 1).flatten(1), shape=tuple(x.shape[1:]))


def measure(name, made, real):
    return metrics.build(name).measure(cloud(made), cloud(real))


def test_colours_half_as_strong_again_are_half_off():
    found = measure("saturation", pictures(200, 1.5), pictures(200))
    assert found.value == pytest.approx(0.5, abs=1e-6)  # the same pictures, and nothing is cut off
    assert found.details["off"] > 0
    assert "50% stronger" in found.notes[0]
    paler = measure("saturation", pictures(200, 0.5), pictures(200))
    assert (paler.value, paler.details["off"]) == pytest.approx((0.5, -0.5), abs=1e-6)
    assert "50% paler" in paler.notes[0]


def test_chroma_is_that_of_known_colours():
    red, white = torch.tensor([1.0, -1.0, -1.0]), torch.ones(3)
    half_red = torch.stack([red, white])[None].movedim(2, 1)[..., None].expand(4, 3, 2, 1)
    found = measure("saturation", half_red, red.reshape(1, 3, 1, 1).expand(4, 3, 2, 1))
    assert (found.details["chroma"], found.details["chroma_real"]) == (0.5, 1.0)


def test_what_is_cut_off_is_counted():
    made, real = torch.zeros(10, *SHAPE), torch.zeros(10, *SHAPE)
    made[:, 0] = 1
    real[:, :, :2] = -1
    found = measure("clipping", made, real)
    assert (found.details["clipped"], found.details["clipped_real"]) == pytest.approx((1 / 3, 1 / 4))
    assert found.details["off"] == pytest.approx(1 / 12)
    assert measure("clipping", torch.full((10, *SHAPE), 254 / 127.5 - 1), real).details["clipped"] == 0


@pytest.mark.parametrize("name", ["saturation", "clipping"])
def test_it_rises_with_guidance(name):
    real = pictures(100, 2.5, seed=1)
    found = [measure(name, pictures(100, strength), real).value for strength in (2.5, 4, 6, 9)]
    assert found == sorted(found)
    assert found[1] > 10 * found[0]


@pytest.mark.parametrize("name", ["saturation", "clipping"])
def test_the_interval_holds_another_draws_number_and_equal_pictures_are_not_told_apart(name):
    inside, silent = 0, 0
    for seed in range(0, 300, 3):
        uneven = [0.5 + torch.rand(60, 1, 1, 1, generator=torch.Generator().manual_seed(seed + i)) for i in range(3)]
        made, again, real = (pictures(60, 2.5, seed + i) * uneven[i] for i in range(3))
        one, other = measure(name, made, real), measure(name, again, real)
        half = one.details["half_width"]
        inside += abs(one.details["off"]) <= half
        silent += not other.notes
    assert 90 <= inside <= 99
    assert silent >= 90


def test_what_is_no_colour_picture_is_refused():
    grey = torch.rand(5, 1, 8, 8)
    with pytest.raises(DataError, match="these pictures are grey"):
        measure("saturation", grey, grey)
    with pytest.raises(DataError, match="looks at pictures, got features"):
        metrics.build("clipping").measure(Cloud(torch.rand(5, 6)), Cloud(torch.rand(5, 6)))
    with pytest.raises(DataError, match="the data has no colours"):
        measure("saturation", pictures(5), torch.zeros(5, *SHAPE))
    with pytest.raises(ShapeError, match=r"expected rows of \(3, 8, 8\), got 6"):
        Cloud(torch.rand(5, 6), shape=SHAPE)
