"""Noise dealt out by optimal transport."""

import importlib.util
import itertools

import pytest
import torch

from unnoise.errors import MissingExtra, ShapeError
from unnoise.objectives.pairing import optimal_pairs


def some(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def cost(x, eps, pairs):
    return float((x - eps[pairs]).square().sum())


@pytest.mark.parametrize("shape", [(5, 5), (5, 2, 3)])
def test_the_pairs_are_the_best_of_all_permutations(shape):
    x, eps = some(0, *shape), some(1, *shape)
    pairs = optimal_pairs(x, eps)
    best = min(cost(x, eps, torch.tensor(p)) for p in itertools.permutations(range(5)))
    assert cost(x, eps, pairs) == pytest.approx(best, rel=1e-12)
    assert cost(x, eps, pairs) < cost(x, eps, torch.arange(5))


def test_the_noise_stays_the_same_noise_and_pairing_twice_changes_nothing():
    x, eps = some(0, 300, 2), some(1, 300, 2)
    pairs = optimal_pairs(x, eps)
    assert sorted(pairs.tolist()) == list(range(300))
    assert torch.equal(optimal_pairs(x, eps[pairs]), torch.arange(300))


def test_on_a_line_the_order_of_noise_is_that_of_data():
    x, eps = some(0, 50, 1), some(1, 50, 1)
    assert torch.equal(eps[optimal_pairs(x, eps)][x[:, 0].argsort(), 0], eps[:, 0].sort().values)


def test_shapes_must_fit():
    with pytest.raises(ShapeError, match="eps"):
        optimal_pairs(torch.zeros(3, 2), torch.zeros(4, 2))


def test_without_scipy_the_extra_is_named(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "scipy" else found(name))
    with pytest.raises(MissingExtra, match=r"unnoise\[train\]"):
        optimal_pairs(torch.zeros(3, 2), torch.zeros(3, 2))
