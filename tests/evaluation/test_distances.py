import math

import numpy as np
import pytest
import scipy.stats
import torch

from unnoise.errors import BadOption, DataError, ShapeError
from unnoise.evaluation import distances
from unnoise.evaluation.distances import energy_distance, mean_distance, sliced_wasserstein


def normal(n, *shape, seed=0):
    return torch.randn(n, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("n", "m"), [(40, 40), (37, 53), (1, 10)])
def test_on_a_line_the_energy_distance_is_the_square_of_scipys(n, m):
    x, y = normal(n, 1), 0.7 + 2 * normal(m, 1, seed=1)
    expected = scipy.stats.energy_distance(x[:, 0].numpy(), y[:, 0].numpy()) ** 2
    assert energy_distance(x, y) == pytest.approx(expected, rel=1e-12)


def test_the_energy_distance_of_two_points_is_twice_their_distance():
    assert energy_distance(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]])) == 10.0


def test_the_energy_distance_of_two_normal_clouds_is_that_of_the_formula():
    # E|X| of a normal vector in 2-D with variance v each way is sqrt(v pi / 2); with the same mean, all three are such.
    a, b = 1.0, 3.0
    exact = math.sqrt(math.pi / 2) * (2 * math.sqrt(a**2 + b**2) - math.sqrt(2) * a - math.sqrt(2) * b)
    n = 4000
    bias = math.sqrt(math.pi) * (a + b) / n  # a V-statistic counts pairs of a sample with itself
    found = energy_distance(a * normal(n, 2), b * normal(n, 2, seed=1))
    assert found == pytest.approx(exact + bias, rel=0.06)


def test_samples_drawn_from_the_data_reach_the_floor_that_the_docstring_names():
    data, n = normal(60, 3), 50
    picks = torch.randint(60, (400, n), generator=torch.Generator().manual_seed(3))
    mean = sum(energy_distance(data[row], data) for row in picks) / len(picks)
    assert mean == pytest.approx(float(torch.cdist(data, data).mean()) / n, rel=0.08)


def test_equal_clouds_in_another_order_have_no_distance():
    x = normal(50, 1, 8, 8).float()
    order = torch.randperm(50, generator=torch.Generator().manual_seed(1))
    assert energy_distance(x, x[order]) == pytest.approx(0, abs=1e-7)
    assert energy_distance(x[:, 0, 0, :5], x[order][:, 0, 0, :5]) == pytest.approx(0, abs=1e-12)
    assert sliced_wasserstein(x, x[order]) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("n", "m"), [(40, 40), (37, 53), (12, 36)])
def test_on_a_line_the_sliced_wasserstein_distance_is_scipys(n, m):
    x, y = normal(n, 1), 0.7 + 2 * normal(m, 1, seed=1)
    expected = scipy.stats.wasserstein_distance(x[:, 0].numpy(), y[:, 0].numpy())
    assert sliced_wasserstein(x, y) == pytest.approx(expected, rel=1e-12)
    repeated = x.repeat_interleave(m, 0), y.repeat_interleave(n, 0)
    assert sliced_wasserstein(x, y, order=2) == pytest.approx(sliced_wasserstein(*repeated, order=2), rel=1e-12)


@pytest.mark.parametrize("order", [1, 2])
def test_a_shift_is_seen_as_its_mean_projection(order):
    # |cos| of a random angle in the plane is 2 / pi on average, and cos^2 is 1 / 2.
    x = normal(30, 2)
    exact = 5.0 * {1: 2 / math.pi, 2: math.sqrt(0.5)}[order]
    moved = x + torch.tensor([3.0, 4.0], dtype=torch.float64)
    assert sliced_wasserstein(x, moved, 20_000, order) == pytest.approx(exact, rel=0.01)


def test_every_direction_of_several_agrees_with_scipy_on_different_numbers():
    x, y = normal(23, 3), 1.5 * normal(31, 3, seed=1)
    theta = torch.from_numpy(distances.normal(distances.address(4, "projections"), range(16), 3))
    theta = theta / theta.norm(dim=1, keepdim=True)
    each = [scipy.stats.wasserstein_distance((x @ v).numpy(), (y @ v).numpy()) for v in theta]
    assert sliced_wasserstein(x, y, 16, seed=4) == pytest.approx(np.mean(each), rel=1e-12)


def test_working_in_blocks_changes_nothing(monkeypatch):
    x, y = normal(70, 4), normal(45, 4, seed=1) + 1
    whole = energy_distance(x, y), sliced_wasserstein(x, y)
    monkeypatch.setattr(distances, "_AT_ONCE", 200)
    assert (energy_distance(x, y), sliced_wasserstein(x, y)) == pytest.approx(whole, rel=1e-12)


def test_distances_in_many_dimensions_keep_their_digits_far_from_zero():
    x, y = normal(40, 20), normal(30, 20, seed=1)
    exact = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").mean()
    assert mean_distance(x + 1e5, y + 1e5) == pytest.approx(float(exact), rel=1e-9)
    assert mean_distance(x[:1] + 1e5, x[:1] + 1e5) == 0


def test_bytes_count_as_numbers():
    x, y = torch.tensor([[250], [0]], dtype=torch.uint8), torch.tensor([[10], [255]], dtype=torch.uint8)
    assert sliced_wasserstein(x, y) == 7.5


def test_bad_samples_are_refused_in_one_line():
    x = normal(5, 2)
    with pytest.raises(ShapeError, match=r"one shape, got x \(5, 2\) and y \(5, 3\)"):
        energy_distance(x, normal(5, 3))
    with pytest.raises(ShapeError, match="at least one sample"):
        sliced_wasserstein(x, x[:0])
    with pytest.raises(DataError, match="1 of 5 samples of y"):
        energy_distance(x, torch.where(torch.arange(5)[:, None] == 2, torch.nan, x))
    with pytest.raises(BadOption, match="order: must be at least 1, got 0"):
        sliced_wasserstein(x, x, order=0)
