"""What an edit begins from: whatever holds a picture is brought to the model's size as pictures of data sets are."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from unnoise.data.base import Spec, datasets
from unnoise.editing.beginnings import NUMBERS, PICTURE, beginning_texts, read_beginning
from unnoise.errors import BadOption, DataError, UnnoiseError

COLOUR, GREY, POINTS = Spec("image", (3, 8, 8)), Spec("image", (1, 8, 8)), Spec("points", (2,))


@pytest.fixture
def photo():
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    return coarse.resize((36, 27), Image.Resampling.BICUBIC)


def begun(found, spec=COLOUR):
    return read_beginning(beginning_texts(found, spec, 1), spec)


def test_pictures_become_what_the_data_set_of_their_folder_holds(photo, tmp_path):
    turned = photo.getexif()
    turned[0x0112] = 6  # the camera was held upright
    see_through = photo.convert("RGBA")
    see_through.putalpha(Image.linear_gradient("L").resize(photo.size))
    photo.save(tmp_path / "a.png")
    photo.save(tmp_path / "b.jpg", exif=turned)
    see_through.save(tmp_path / "c.png")
    photo.convert("L").save(tmp_path / "d.png")
    for spec in (COLOUR, GREY, Spec("image", (4, 8, 8))):
        data = datasets.build(
            {"name": "folder", "path": str(tmp_path), "size": 8, "channels": spec.shape[0], "cache": False}
        ).load()
        for file, expected in zip(sorted(tmp_path.iterdir()), data.x, strict=True):
            text = PICTURE + base64.b64encode(file.read_bytes()).decode()
            for given in (file, str(file), text):
                assert torch.equal(begun(given, spec), expected), (file, spec)
            if file.suffix == ".png":
                assert torch.equal(begun(Image.open(file), spec), expected)


def test_pictures_that_are_not_square_keep_their_middle(photo):
    spec = Spec("image", (3, 4, 8))
    made = begun(photo, spec)
    assert made.shape == (3, 4, 8)
    whole = np.asarray(photo.resize((8, 6), Image.Resampling.LANCZOS)).transpose(2, 0, 1)
    assert np.abs(made.numpy().astype(int) - whole[:, 1:5]).max() <= 40
    assert torch.equal(begun(np.full((20, 10, 3), 7, np.uint8), spec), torch.full((3, 4, 8), 7, dtype=torch.uint8))


def test_what_has_the_model_s_shape_is_kept_to_the_bit():
    chance = torch.Generator().manual_seed(0)
    for spec in (COLOUR, GREY, Spec("image", (2, 5, 3)), POINTS, Spec("array", (2, 3, 4))):
        if spec.kind == "image":
            x = torch.randint(0, 256, (3, *spec.shape), dtype=torch.uint8, generator=chance)
        else:
            x = torch.randn(3, *spec.shape, generator=chance)
        texts = beginning_texts(x, spec, 3)
        assert all(text.startswith((PICTURE, NUMBERS)) for text in texts)
        assert torch.equal(torch.stack([read_beginning(text, spec) for text in texts]), x)
        assert beginning_texts(texts, spec, 3) == texts
        assert beginning_texts(list(x.numpy()), spec, 3) == texts
        assert beginning_texts(x[:1], spec, 3) == beginning_texts(x[0].tolist(), spec, 3) == texts[0]


def test_files_of_samples_hold_points(tmp_path):
    x = np.array([[0.5, -1.0], [2.0, 3.0]], np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    np.save(tmp_path / "x.npy", x[1])
    assert [
        read_beginning(text, POINTS).tolist() for text in beginning_texts(tmp_path / "x.npz", POINTS, 2)
    ] == x.tolist()
    assert begun(tmp_path / "x.npy", POINTS).tolist() == [2.0, 3.0]
    (tmp_path / "y.npz").write_bytes((tmp_path / "x.npz").read_bytes()[:50])
    np.savez(tmp_path / "z.npz", y=x)
    for name in ("y.npz", "z.npz", "nothing.npy"):
        with pytest.raises(DataError, match=name):
            begun(tmp_path / name, POINTS)


def huge():
    buffer = io.BytesIO()
    Image.new("1", (9000, 9000)).save(buffer, "PNG")
    return PICTURE + base64.b64encode(buffer.getvalue()).decode()


@pytest.mark.parametrize(
    ("found", "spec", "message"),
    [
        ("nothing.png", COLOUR, "image: nothing.png: there is no such file"),
        (__file__, COLOUR, "cannot be read as a picture"),
        ("data:image/png;base64,????", COLOUR, "base64"),
        ("data:image/png;base64,", COLOUR, "base64"),
        ("data:image/png;base64,AAAA", COLOUR, "cannot be read as a picture"),
        ("data:image/png,AAAA", COLOUR, "base64"),
        (NUMBERS + "AAAA", POINTS, "expected the 8 bytes of data of shape"),
        (NUMBERS + "AACAfwAAgH8=", POINTS, "infinite"),
        (np.zeros((3, 8, 8)), COLOUR, "whole numbers"),
        (np.full((3, 8, 8), 256), COLOUR, "whole numbers"),
        (np.full((3, 8, 8), -1), COLOUR, "whole numbers"),
        (np.zeros((2, 8, 8), np.uint8), COLOUR, "whole numbers"),
        (np.zeros((0, 8, 3), np.uint8), COLOUR, "got uint8"),
        ([1.0, 2.0, 3.0], POINTS, "expected numbers of shape"),
        ([[1.0], [2.0, 3.0]], POINTS, "expected a file, a picture or an array"),
        ([], POINTS, "expected one, or one for each of 1 samples, got 0"),
        (object(), POINTS, "expected a file, a picture or an array"),
        ("x.png", POINTS, "the model makes no pictures"),
        (huge(), COLOUR, "81,000,000 pixels are too many"),
    ],
    ids=range(19),
)
def test_what_is_none_is_one_line(found, spec, message):
    with pytest.raises((BadOption, DataError), match=message) as caught:
        beginning_texts(found, spec, 1)
    assert isinstance(caught.value, UnnoiseError)
    assert str(caught.value).startswith("image: ")
    assert "\n" not in str(caught.value)
