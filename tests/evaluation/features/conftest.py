"""What the tests of feature extractors share: a cache of their own, small data, and the Frechet distance."""

import numpy as np
import pytest
import torch

from unnoise.data.base import Dataset, Spec
from unnoise.data.digits import DigitsDataset


@pytest.fixture(autouse=True)
def cache_dir(tmp_path_factory, monkeypatch):
    """An empty cache for each test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("UNNOISE_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def digits():
    return DigitsDataset().load()


@pytest.fixture
def random_data():
    """Makes N random samples of a shape: pictures as bytes, or numbers; with the labels 0 and 1 if asked."""

    def make(kind, shape, count=40, labelled=False, seed=0):
        draw = torch.Generator().manual_seed(seed)
        if kind == "image":
            x = torch.randint(0, 256, (count, *shape), generator=draw, dtype=torch.uint8)
        else:
            x = torch.randn(count, *shape, generator=draw)
        labels = torch.arange(count) % 2 if labelled else None
        return Dataset(x, Spec(kind, shape, ("even", "odd") if labelled else ()), labels)

    return make


@pytest.fixture(scope="session")
def frechet():
    """The Frechet distance of two clouds as normal distributions, by eigenvalues."""

    def distance(a, b):
        a, b = a.double().numpy(), b.double().numpy()
        values, vectors = np.linalg.eigh(np.cov(a.T))
        root = vectors * np.sqrt(values.clip(0)) @ vectors.T
        across = np.sqrt(np.linalg.eigvalsh(root @ np.cov(b.T) @ root).clip(0)).sum()
        return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(np.cov(a.T) + np.cov(b.T)) - 2 * across)

    return distance
