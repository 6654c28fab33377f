"""What the tests of the data sets share: a cache of their own, and pictures to put into folders."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def cache_dir(tmp_path_factory, monkeypatch):
    """An empty cache for each test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("UNNOISE_CACHE", str(folder))
    return folder


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def save():
    """Writes an array of pixels as a picture, in the format that its name says, and makes the folders above it."""

    def write(path: Path, pixels: np.ndarray, **settings: object) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, **settings)
        return path

    return write


@pytest.fixture
def pictures(rng, save):
    """Fills a folder with PNGs of 8 x 8 random colours, and returns their pixels, shape (N, 8, 8, 3)."""

    def fill(folder: Path, count: int, name: str = "{}.png") -> np.ndarray:
        pixels = rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
        for i, each in enumerate(pixels):
            save(folder / name.format(i), each)
        return pixels

    return fill


@pytest.fixture
def png():
    """The bytes of a PNG of an array of pixels."""

    def encode(pixels: np.ndarray) -> bytes:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        return stream.getvalue()

    return encode
