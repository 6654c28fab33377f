import pytest
import torch

from unnoise.errors import DataError
from unnoise.evaluation.metrics import _neighbours
from unnoise.evaluation.metrics.base import Cloud, metrics

NAMES = ["precision", "recall", "density", "coverage"]


def normal(n, d, seed=0):
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def by_definition(made, real, k):
    """The four numbers as their papers write them, over all distances at once."""

    def radii(x):
        return torch.cdist(x, x).topk(k + 1, largest=False).values[:, -1]  # the nearest is the sample itself

    away = torch.cdist(made, real)
    in_real, in_made = away <= radii(real), away <= radii(made)[:, None]
    return {
        "precision": float(in_real.any(1).double().mean()),
        "recall": float(in_made.any(0).double().mean()),
        "density": float(in_real.sum()) / (k * len(made)),
        "coverage": float(in_real.any(0).double().mean()),
    }


@pytest.mark.parametrize("k", [1, 3, 5, 8])
@pytest.mark.parametrize("name", NAMES)
def test_they_are_the_numbers_of_their_definitions(name, k, monkeypatch):
    monkeypatch.setattr(_neighbours, "_SIDE", 37)
    made, real = 1.2 * normal(150, 6), normal(110, 6, seed=1) + 0.3
    found = metrics.build({"name": name, "k": k}).measure(Cloud(made), Cloud(real))
    assert found.value == pytest.approx(by_definition(made, real, k)[name], rel=1e-12)
    assert found.low <= found.value <= found.high


def test_all_four_take_the_distances_once(monkeypatch):
    calls = []
    work_out = _neighbours._work_out
    monkeypatch.setattr(_neighbours, "_work_out", lambda *given: calls.append(given) or work_out(*given))
    made, real = Cloud(normal(90, 4)), Cloud(normal(90, 4, seed=1))
    together = [metrics.build(name).measure(made, real) for name in NAMES]
    assert len(calls) == 1
    monkeypatch.setattr(_neighbours, "_last", [])
    assert metrics.build("coverage").measure(made, real) == together[3]


def test_features_that_were_changed_in_place_are_looked_at_again():
    made, real = Cloud(normal(90, 4)), Cloud(normal(90, 4, seed=1))
    before = metrics.build("precision").measure(made, real).value
    made.features.add_(100)
    assert before > 0.5
    assert metrics.build("precision").measure(made, real).value == 0


def test_copies_of_all_real_samples_are_all_precise_and_cover_all():
    real = normal(120, 30) + 50  # far from 0, where squared distances of copies are rounding
    for name in ("precision", "recall", "coverage"):
        found = metrics.build(name).measure(Cloud(real.flip(0)), Cloud(real))
        assert found.value == 1
        assert found.low < 1  # no failure among 120 is no proof
        assert found.high == 1


def test_too_few_samples_are_refused():
    with pytest.raises(DataError, match="coverage needs at least 16 made samples, got 15"):
        metrics.build("coverage").measure(Cloud(normal(15, 2)), Cloud(normal(30, 2)))
    metrics.build("coverage").measure(Cloud(normal(16, 2)), Cloud(normal(16, 2, seed=1)))
    metrics.build("precision").measure(Cloud(normal(12, 2)), Cloud(normal(12, 2, seed=1)))
