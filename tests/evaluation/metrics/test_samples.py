"""The distances of samples themselves, and the metrics that look at one side or at labels."""

import importlib.util
import math

import pytest
import scipy.linalg
import torch

from unnoise.errors import DataError, MissingExtra
from unnoise.evaluation.distances import energy_distance, sliced_wasserstein
from unnoise.evaluation.metrics.base import Cloud, metrics


def normal(n, d, seed=0):
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def measure(name, made, real, **options):
    return metrics.build({"name": name, **options}).measure(Cloud(made), Cloud(real))


@pytest.mark.parametrize("d", [2, 20])
def test_energy_with_pairs_of_itself_is_the_energy_distance(d):
    x, y = normal(70, d) + 30, 1.3 * normal(50, d, seed=1) + 30
    found = measure("energy", x, y)
    assert found.details["biased"] == pytest.approx(energy_distance(x, y), rel=1e-6)
    own = torch.cdist(x, x).sum() / (70**2 * 69) + torch.cdist(y, y).sum() / (50**2 * 49)
    assert found.value == pytest.approx(found.details["biased"] - float(own), rel=1e-5)


def test_cmmd_with_pairs_of_itself_is_that_of_its_authors():
    x, y = normal(40, 16), normal(50, 16, seed=1) + 0.3
    a, b = x / x.norm(dim=1, keepdim=True), y / y.norm(dim=1, keepdim=True)
    k = lambda p, q: torch.exp(-torch.cdist(p, q).square() / 200).mean()
    assert measure("cmmd", x, y).details["biased"] == pytest.approx(float(1000 * (k(a, a) + k(b, b) - 2 * k(a, b))))
    assert measure("cmmd", 3 * x, y).value == pytest.approx(measure("cmmd", x, y).value, rel=1e-9)


def test_mmd_does_not_change_with_the_unit_of_the_data():
    x, y = normal(60, 3), normal(60, 3, seed=1) + 1
    assert measure("mmd", 100 * x, 100 * y).value == pytest.approx(measure("mmd", x, y).value, rel=1e-9)
    with pytest.raises(DataError, match="median distance is 0"):
        measure("mmd", x, torch.ones(60, 3))


@pytest.mark.parametrize(("d", "order", "m"), [(5, 1, 60), (5, 2, 45), (1, 1, 60)], ids=str)
def test_sliced_wasserstein_is_that_of_distances_with_an_interval_around_it(d, order, m):
    x, y = normal(60, d), normal(m, d, seed=1) + 0.5
    found = measure("sliced_wasserstein", x, y, order=order)
    assert found.value == sliced_wasserstein(x, y, order=order)
    assert found.low < found.value < found.high


def test_the_interval_of_sliced_wasserstein_is_that_of_leaving_every_sample_out_in_turn():
    # Far apart on a line, the cost is the difference of the means, and a sample's influence is where it lies.
    x, y = normal(80, 1), normal(80, 1, seed=1) + 20
    found = measure("sliced_wasserstein", x, y)
    error = float((x.var() / 80 + y.var() / 80).sqrt())
    assert (found.high - found.low) / 2 == pytest.approx(1.975 * error, rel=0.01)  # Student's factor for 158 degrees


def test_exact_wasserstein_of_a_shift_is_the_shift():
    x = normal(64, 3)
    found = measure("wasserstein", x.flip(0) + 2, x)
    assert found.value == pytest.approx(2 * math.sqrt(3), rel=1e-12)
    assert measure("wasserstein", x.flip(0), x).value == 0


def test_exact_wasserstein_on_a_line_pairs_by_rank_and_its_interval_holds_the_truth():
    # W2 of N(0, 1) and N(2, 1.5^2) is sqrt(4 + 0.25); 150 samples leave a bias of about 0.01 against an error of 0.13.
    inside = 0
    for seed in range(100):
        x, y = normal(150, 1, seed=2 * seed), 1.5 * normal(150, 1, seed=2 * seed + 1) + 2
        found = measure("wasserstein", x, y)
        assert found.value == pytest.approx(float((x.sort(0).values - y.sort(0).values).square().mean().sqrt()))
        inside += found.low <= math.sqrt(4.25) <= found.high
    assert 90 <= inside <= 99


def test_exact_wasserstein_takes_as_many_of_both_sides():
    found = measure("wasserstein", normal(50, 2), normal(30, 2, seed=1))
    assert (found.num_made, found.num_real) == (30, 30)
    assert "30 of 50 made" in found.notes[0]
    assert measure("wasserstein", normal(50, 2), normal(30, 2), at_most=20).num_made == 20


def test_without_scipy_exact_wasserstein_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"needs scipy, .* pip install 'unnoise\[eval\]'"):
        measure("wasserstein", normal(5, 2), normal(5, 2))


def test_vendi_is_its_definition_by_the_matrix_of_similarities():
    x = normal(30, 8)
    unit = x / x.norm(dim=1, keepdim=True)
    similarities = (unit @ unit.T / 30).numpy()
    values = scipy.linalg.eigvalsh(similarities)
    values = values[values > 1e-12]
    found = measure("vendi", x, normal(30, 8, seed=1))
    assert found.value == pytest.approx(math.exp(-(values * torch.tensor(values).log().numpy()).sum()), rel=1e-10)
    assert found.low < found.value < found.high <= 8


def test_vendi_counts_directions_that_nothing_else_shares():
    assert measure("vendi", torch.eye(6).repeat(4, 1), torch.eye(6)).value == pytest.approx(6, rel=1e-12)
    assert measure("vendi", torch.ones(9, 6), torch.eye(6)).value == pytest.approx(1, abs=1e-12)
    assert measure("vendi", torch.ones(9, 6), torch.eye(6)).details["real"] == pytest.approx(6, rel=1e-12)


def test_the_interval_of_vendi_is_that_of_leaving_every_sample_out_in_turn(digits):
    x = digits[0][:80]
    found = measure("vendi", x, x)
    without = [measure("vendi", x[torch.arange(80) != i], x).value for i in range(80)]
    logs = torch.tensor(without, dtype=torch.float64).log()
    error = 79 / math.sqrt(80) * float(logs.std())
    away = logs - logs.mean()
    kurtosis = float(away.pow(4).mean() / away.square().mean() ** 2)
    # Student's factor for 79 degrees, and the root of 2 for another score; the shorter of two intervals decides whether each
    # holds the other's score; directions and their sizes were fitted to the same samples. What is left is of third order.
    shorter = 1 - math.sqrt((kurtosis - 1) / (4 * 80)) / math.sqrt(math.pi)
    half = 1.99 * math.sqrt(2) * error / math.sqrt(1 - 2 * found.value / 80) / shorter
    assert math.log(found.high / found.low) / 2 == pytest.approx(half, rel=0.04)


def test_accuracy_is_the_mean_over_labels_with_wilsons_interval_of_each():
    asked = torch.tensor([0] * 10 + [1] * 90)
    predicted = asked.clone()
    predicted[:5], predicted[10:19] = 1, 0
    real = Cloud(normal(8, 2), torch.tensor([0, 1] * 4), torch.tensor([0, 1] * 3 + [0, 0]))
    found = metrics.build("accuracy").measure(Cloud(normal(100, 2), asked, predicted), real)
    assert found.value == pytest.approx((0.5 + 0.9) / 2)
    first = found.details["classes"]["0"]
    assert (first["value"], first["n"]) == (0.5, 10)
    assert first["low"] == pytest.approx(0.2366, abs=1e-4)  # Wilson's interval of 5 of 10
    assert found.details["real"] == pytest.approx((1 + 0.75) / 2)
    assert found.low < found.value < found.high


def test_without_a_classifier_the_nearest_real_samples_judge():
    centres = torch.tensor([[-9.0, 0.0], [9.0, 0.0]], dtype=torch.float64)
    labels = torch.arange(40) % 2
    real = Cloud(centres[labels] + normal(40, 2), labels)
    made = Cloud(centres[labels] + normal(40, 2, seed=1), labels)
    found = metrics.build("accuracy").measure(made, real)
    assert (found.value, found.details["real"], found.details["classifier"]) == (1, 1, "nearest real samples")
    assert metrics.build("accuracy").measure(Cloud(made.features, 1 - labels), real).value == 0


def test_accuracy_without_labels_is_refused():
    x, labels = normal(10, 2), torch.arange(10) % 2
    with pytest.raises(DataError, match="labels that the made samples were asked for"):
        metrics.build("accuracy").measure(Cloud(x), Cloud(x, labels))
    with pytest.raises(DataError, match="classifier's answers to the made samples or the labels of the real"):
        metrics.build("accuracy").measure(Cloud(x, labels), Cloud(x))
