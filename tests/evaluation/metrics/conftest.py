import pytest

from unnoise.data.base import datasets


@pytest.fixture(scope="session")
def digits():
    """The shipped digits as rows of 64 pixels in [0, 1], float64, with their labels."""
    data = datasets.build("digits").load()
    return data.x.flatten(1).double() / 255, data.labels
