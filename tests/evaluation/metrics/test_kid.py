import pytest
import torch
from torchmetrics.image.kid import poly_mmd

from unnoise.errors import DataError
from unnoise.evaluation.metrics import _discrepancy
from unnoise.evaluation.metrics.base import Cloud
from unnoise.evaluation.metrics.kid import KIDMetric


def normal(n, d, seed=0):
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("n", [3, 50, 333])
def test_it_is_the_number_of_torchmetrics_over_all_samples_at_once(n):
    x, y = normal(n, 16), 1.1 * normal(n, 16, seed=1) + 0.2
    # poly_mmd is what KernelInceptionDistance works out for every subset; with subset_size = N there is one.
    found = KIDMetric().measure(Cloud(x), Cloud(y))
    assert found.value == pytest.approx(float(poly_mmd(x, y)), rel=1e-9)


def test_the_size_of_the_blocks_changes_nothing(monkeypatch):
    clouds = Cloud(normal(101, 5)), Cloud(normal(64, 5, seed=1) + 0.3)
    at_once = KIDMetric().measure(*clouds)
    monkeypatch.setattr(_discrepancy, "_AT_ONCE", 17**2)
    found = KIDMetric().measure(*clouds)
    assert (found.value, found.high) == pytest.approx((at_once.value, at_once.high), rel=1e-9)


def test_the_interval_is_that_of_leaving_every_sample_out_in_turn():
    x, y = normal(12, 3), normal(9, 3, seed=1) + 0.5
    metric = KIDMetric()
    without_x = torch.tensor([metric.measure(Cloud(x[torch.arange(12) != i]), Cloud(y)).value for i in range(12)])
    without_y = torch.tensor([metric.measure(Cloud(x), Cloud(y[torch.arange(9) != i])).value for i in range(9)])
    error = (11**2 / 12 * without_x.double().var() + 8**2 / 9 * without_y.double().var()).sqrt()
    found = metric.measure(Cloud(x), Cloud(y))
    # Between Student's factors for 19 and for 8 degrees of freedom.
    assert 2.093 < (found.value - found.low) / float(error) < 2.307


def test_more_samples_than_the_cap_are_drawn_by_the_seed():
    x, y = Cloud(normal(60, 4)), Cloud(normal(50, 4, seed=1))
    metric = KIDMetric(at_most=40)
    found = metric.measure(x, y, seed=3)
    assert (found.num_made, found.num_real) == (40, 40)
    assert metric.measure(x, y, seed=3) == found
    assert metric.measure(x, y, seed=4).value != found.value


def test_fewer_than_three_samples_are_refused():
    with pytest.raises(DataError, match="kid needs at least 3 made samples, got 2"):
        KIDMetric().measure(Cloud(normal(2, 4)), Cloud(normal(5, 4)))
