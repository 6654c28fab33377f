"""What every registered metric must do."""

import math

import pytest
import torch

from unnoise.errors import DataError, ShapeError
from unnoise.evaluation.metrics.base import Cloud, metrics


def cloud(n, d=6, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, d, generator=generator, dtype=torch.float64).to(dtype)
    return Cloud(rows, torch.arange(n) % 3, shape=(3, d // 3, 1) if d % 3 == 0 else None)


@pytest.fixture(params=list(metrics))
def metric(request):
    return metrics.build(request.param)


def test_its_value_lies_inside_its_interval_and_it_counts_its_samples(metric):
    made, real = cloud(64), cloud(64, seed=1)
    found = metric.measure(made, real)
    assert found.low <= found.value <= found.high
    assert found.high > found.low
    assert all(math.isfinite(end) for end in (found.low, found.high))
    assert (found.num_made, found.num_real) == (64, 64)
    assert found.interval


def test_the_same_seed_gives_the_same_and_float32_what_float64_gives(metric):
    made, real = cloud(50), cloud(60, seed=1)
    found = metric.measure(made, real, seed=5)
    assert metric.measure(made, real, seed=5) == found
    wider = [Cloud(each.features.double(), each.labels, shape=each.shape) for each in (made, real)]
    assert metric.measure(*wider, seed=5).value == pytest.approx(found.value, rel=1e-12)


def test_other_widths_nan_and_a_single_sample_are_refused(metric):
    with pytest.raises(ShapeError):
        metric.measure(cloud(40), cloud(40, d=7))
    broken = cloud(40)
    broken.features[2, 3] = torch.nan
    with pytest.raises(DataError, match=f"{metric.registered_name}: 1 of 40 real samples"):
        metric.measure(cloud(40), broken)
    with pytest.raises(DataError, match=f"{metric.registered_name} needs at least"):
        metric.measure(cloud(1), cloud(40))


def test_the_inputs_are_left_as_they_were(metric):
    made, real = cloud(40), cloud(40, seed=1)
    before = made.features.clone(), real.features.clone()
    metric.measure(made, real)
    assert torch.equal(made.features, before[0])
    assert torch.equal(real.features, before[1])


def test_constant_and_repeated_samples_give_finite_numbers(metric):
    made = Cloud(torch.ones(40, 6), torch.arange(40) % 3, shape=(3, 2, 1))
    found = metric.measure(made, cloud(40, seed=1))
    assert math.isfinite(found.value)
    assert math.isfinite(found.low)
    assert math.isfinite(found.high)
