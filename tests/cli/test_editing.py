"""`unnoise sample --image`: a picture made partly anew, and the same again from the file."""

import json

import numpy as np
import pytest
from PIL import Image

from unnoise.samples import read_recipe

from ..conftest import make_model


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with two models, a picture and some points."""
    folder = tmp_path_factory.mktemp("place")
    for name, kind in (("digits", "image"), ("spiral", "points")):
        make_model(kind).save(folder / name)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 24), dtype=np.uint8)).save(folder / "cat.png")
    np.savez(folder / "x.npz", x=np.array([[0.5, -1.0], [0.0, 2.0]], np.float32))
    return folder


def test_a_picture_is_made_anew_and_its_files_are_made_again(unnoise, place, tmp_path):
    asked = ("sample", place / "digits", "-n", 3, "--label", "a", "--steps", 3, "--batch-size", 2)
    said = unnoise(*asked, "--image", place / "cat.png", "--strength", 0.4, "-o", tmp_path / "out")
    assert said.code == 0, said.err
    files = sorted((tmp_path / "out").iterdir())
    assert len(files) == 3
    assert read_recipe(files[2])["strength"] == 0.4
    before = [file.stat().st_mtime_ns for file in files]
    said = unnoise(*asked, "--image", place / "cat.png", "--strength", 0.4, "-o", tmp_path / "out")
    assert "3 of them from before" in said.out
    assert [file.stat().st_mtime_ns for file in files] == before
    assert "of them from before" not in unnoise(*asked, "--image", place / "cat.png", "-o", tmp_path / "out").out
    assert read_recipe(files[2])["strength"] == 0.6
    assert unnoise("replay", files[2], "-o", tmp_path / "again.png").code == 0
    assert (tmp_path / "again.png").read_bytes() == files[2].read_bytes()


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.gif", "x.npz"])
def test_one_file_of_all_is_made_again(unnoise, place, tmp_path, name):
    asked = ("sample", place / "digits", "-n", 2, "--steps", 2, "--image", place / "cat.png", "-o", tmp_path / name)
    assert unnoise(*asked).code == 0
    assert unnoise("replay", tmp_path / name, "-o", tmp_path / f"again-{name}").code == 0
    assert (tmp_path / name).read_bytes() == (tmp_path / f"again-{name}").read_bytes()
    told, whole = (unnoise("info", tmp_path / name, *more).out for more in ((), ("--json",)))
    text = read_recipe(tmp_path / name)["image"]
    assert json.loads(told)["image"] == f"data:image/png;base64, and {len(text)} characters of it"
    assert json.loads(whole)["image"] == text


def test_points_begin_from_points(unnoise, place, tmp_path):
    asked = ("sample", place / "spiral", "-n", 2, "--image", place / "x.npz")
    assert unnoise(*asked, "--strength", 0, "-o", tmp_path / "y.npz").code == 0
    assert np.load(tmp_path / "y.npz")["x"].tolist() == [[0.5, -1.0], [0.0, 2.0]]


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (("--strength", 0.5), "strength: says how much of a picture is made anew"),
        (("--image", "cat.png", "--strength", 2), "strength: must be at most 1"),
        (("--image", "dog.png"), "dog.png: there is no such file"),
        (("--image", "digits/model.yaml"), "cannot be read as a picture"),
        (("--image", "digits"), "cannot be read as a picture"),
        (("--image", "x.npz"), "whole numbers in [0, 255] of shape (1, 6, 6)"),
    ],
)
def test_what_cannot_be_is_one_line(refused, place, tmp_path, monkeypatch, told, message):
    monkeypatch.chdir(place)
    assert message in refused("sample", "digits", "-n", 1, *told, "-o", tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()
