"""Files of samples: what they show, what they may be called, and that damage is told."""

import io
import random
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unnoise.data.base import Spec
from unnoise.data.open import source_of
from unnoise.errors import BadOption, DataError
from unnoise.samples import LONGEST_IN_EXIF, PART_IN_JPEG, Samples, check_target, read_recipe

RECIPE = {
    "model": {"path": "runs/x", "hash": "0" * 64}, "n": 3, "first": 0, "label": None, "sampler": {"name": "ddim"},
    "steps": 2, "grid": "uniform", "guidance": {"scale": 1.0}, "seed": 0, "batch_size": 3, "frames": True,
}  # fmt: skip


def points(values):
    x = torch.as_tensor(values, dtype=torch.float32)
    return Samples(x, Spec("points", tuple(x.shape[1:])), RECIPE, (x, x + 1))


def images():
    x = torch.arange(3 * 64, dtype=torch.uint8).reshape(3, 1, 8, 8)
    return Samples(x, Spec("image", (1, 8, 8)), RECIPE)


def test_the_picture_of_points_far_from_zero_shows_them():
    def ink(offset):
        cloud = torch.randn(200, 2, generator=torch.Generator().manual_seed(0)) + torch.tensor(offset)
        return float((np.asarray(points(cloud).picture().convert("L")) < 200).mean())

    assert ink((1000.0, -3.0)) > 0.5 * ink((0.0, 0.0))


@pytest.mark.parametrize("values", [[[5.0, 5.0]], [[5.0]], [[float("nan"), 1.0]], [[1.0, 2.0, 3.0]]])
def test_odd_clouds_have_a_picture_too(values):
    assert points(values).picture().width > 100


def test_a_name_that_does_not_fit_the_samples_is_refused_before_they_are_made():
    array = Spec("array", (3, 7, 13))
    for name in ("x.png", "x.jpg", "x.gif", "x.csv"):
        with pytest.raises(BadOption, match=r"use \.npz"):
            check_target(Path(name), array)
    with pytest.raises(BadOption, match="only points"):
        check_target(Path("x.csv"), Spec("image", (1, 8, 8)))
    for name in ("x.npz", "x.safetensors", "folder"):
        check_target(Path(name), array)


@pytest.mark.parametrize("length", [LONGEST_IN_EXIF - 1000, LONGEST_IN_EXIF, 3 * PART_IN_JPEG])
def test_a_jpeg_holds_a_recipe_of_any_length(tmp_path, length):
    one = images()
    recipe = {**RECIPE, "label": ["é\u2603"] + ["x"] * (length // 5)}
    (file,) = Samples(one.tensor, one.spec, recipe).save(tmp_path / "x.jpg")
    assert read_recipe(file) == recipe
    with Image.open(file) as picture:
        bare = Samples(one.tensor, one.spec, RECIPE).picture()
        assert picture.size == bare.size
        assert np.abs(np.asarray(picture, dtype=int) - np.asarray(bare, dtype=int)).mean() < 3


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".gif", ".apng", ".npz", ".csv", ".safetensors"])
def test_a_damaged_file_is_one_clear_error(tmp_path, suffix):
    made = points([[0.0, 1.0], [2.0, 3.0], [1.0, 1.0]]) if suffix in (".csv", ".gif", ".apng") else images()
    (file,) = made.save(tmp_path / f"x{suffix}")
    whole, chance = file.read_bytes(), random.Random(0)
    for k in range(60):
        content = bytearray(whole[: chance.randrange(len(whole))] if k % 3 == 0 else whole)
        for _ in range(0 if k % 3 == 0 else 4):
            content[chance.randrange(min(len(content), 600))] = chance.randrange(256)
        file.write_bytes(content)
        with suppress(DataError):
            read_recipe(file)


def test_points_that_were_saved_as_a_table_can_be_read_as_data(tmp_path):
    made = points([[0.0, 1.5], [2.0, -3.0]])
    made.save(tmp_path / "x.csv")
    assert torch.equal(source_of(tmp_path / "x.csv").load().x, made.tensor)
    text = (tmp_path / "x.csv").read_text().replace("1.5", "oops")
    (tmp_path / "y.csv").write_text(text)
    with pytest.raises(DataError, match="line 3, column y: 'oops' is no number"):
        source_of(tmp_path / "y.csv").load()


def test_arrays_are_saved_as_they_are(tmp_path):
    x = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(0)).transpose(0, 0)
    Samples(x, Spec("array", (2, 5)), RECIPE).save(tmp_path / "x.npz")
    with np.load(io.BytesIO((tmp_path / "x.npz").read_bytes())) as file:
        assert np.array_equal(file["x"], x.numpy())
