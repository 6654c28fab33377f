"""Small models and small data to judge."""

import numpy as np
import pytest
import torch

from unnoise.data.base import datasets
from unnoise.recipes.recipe import load_recipe
from unnoise.recipes.run import Run

POINTS = (
    "training.steps=150", "training.checkpoint_every=150", "training.sample_every=0", "training.validation_size=16",
    "training.validate_every=150", "network.width=32", "training.batch_size=64", "training.lr=3e-3",
)  # fmt: skip
PICTURES = (
    "training.steps=3", "training.checkpoint_every=3", "training.sample_every=0", "training.validation_size=16",
    "training.validate_every=3", "network.width=8", "network.multipliers=[1]", "network.attention=[]",
    "training.batch_size=8", "training.validation_share=0.3", "sampling.steps=2",
)  # fmt: skip


def trained(folder, name, overrides):
    for _ in Run(load_recipe(name, overrides), str(folder)).events():
        pass
    return folder


@pytest.fixture(scope="session")
def moons(tmp_path_factory):
    """A run on labelled points."""
    return trained(tmp_path_factory.mktemp("judged") / "moons", "two-moons-labels", POINTS)


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """A run on labelled pictures that has learned nothing, with a third of them held out."""
    return trained(tmp_path_factory.mktemp("judged") / "digits", "digits", PICTURES)


@pytest.fixture(scope="session")
def real_digits():
    return datasets.build("digits").load()


@pytest.fixture
def pictures(tmp_path):
    """Writes pictures of shape (N, 1, H, W) as a folder of PNG files, in a folder for each label where there are some."""
    from PIL import Image

    def write(name, x, labels=None):
        for i, pixels in enumerate(np.asarray(x)[:, 0]):
            folder = tmp_path / name / ("" if labels is None else str(int(labels[i])))
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{i:04d}.png")
        return tmp_path / name

    return write


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
