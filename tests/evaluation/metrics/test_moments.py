import pytest
import torch

from unnoise.errors import DataError, ShapeError
from unnoise.evaluation.metrics.moments import Moments, frechet_distance


def normal(n, d, seed=0):
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_they_are_the_mean_and_the_unbiased_covariance():
    x = 1e4 + normal(500, 7)  # far from 0, where a sum of squares would lose eight digits
    moments = Moments.of(x.split(33))
    torch.testing.assert_close(moments.mean, x.mean(0), rtol=1e-14, atol=0)
    torch.testing.assert_close(moments.covariance, torch.cov(x.T), rtol=1e-11, atol=1e-11)
    assert moments.n == 500


@pytest.mark.parametrize("parts", [2, 3, 8])
def test_what_processes_have_seen_apart_merges_into_what_one_would_have_seen(parts):
    x, reference = normal(400, 12), Moments.of([normal(300, 12, seed=1)])
    merged = Moments(12)
    for rank in range(parts):
        merged.merge(Moments.of(x[rank::parts].split(16)))
    whole = Moments.of([x])
    torch.testing.assert_close(merged.covariance, whole.covariance, rtol=1e-12, atol=1e-13)
    assert frechet_distance(merged, reference) == pytest.approx(frechet_distance(whole, reference), rel=1e-12)


def test_a_state_brings_them_back_and_is_not_changed_by_what_follows():
    moments = Moments.of([normal(20, 3)])
    state = moments.state()
    moments.update(normal(5, 3, seed=1))
    again = Moments.from_state(state)
    assert again.n == 20
    again.update(normal(5, 3, seed=1))
    assert torch.equal(again.covariance, moments.covariance)
    assert torch.equal(again.mean, moments.mean)


def test_halves_and_float32_are_taken_as_they_are():
    x = normal(50, 4).float()
    torch.testing.assert_close(Moments.of([x]).covariance, torch.cov(x.double().T), rtol=1e-12, atol=1e-14)


def test_what_cannot_be_taken_in_is_refused():
    moments = Moments(3)
    moments.update(torch.empty(0, 3))
    moments.merge(Moments(3))
    with pytest.raises(DataError, match="at least 2 samples, got 0"):
        _ = moments.covariance
    with pytest.raises(ShapeError, match=r"\(n, 3\), got \(2, 4\)"):
        moments.update(normal(2, 4))
    with pytest.raises(ShapeError, match="width 3, got 4"):
        moments.merge(Moments(4))
    with pytest.raises(DataError, match="at least one batch"):
        Moments.of([])
