"""Known corruptions of real digits, each ranked by the metric that is meant for it."""

import pytest
import torch

from unnoise.evaluation.metrics.base import Cloud, metrics


@pytest.fixture(scope="module")
def halves(digits):
    x, labels = digits
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    made, real = order[:898], order[898:1796]
    return Cloud(x[made], labels[made]), Cloud(x[real], labels[real])


def value(name, made, real):
    return metrics.build(name).measure(made, real).value


def noisy(cloud, level):
    eps = torch.randn(cloud.features.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return Cloud((cloud.features + level * eps).clamp(0, 1), cloud.labels)


def blurred(cloud, level):
    pictures = cloud.features.reshape(-1, 1, 8, 8)
    soft = torch.nn.functional.avg_pool2d(pictures, 3, stride=1, padding=1)
    return Cloud(((1 - level) * pictures + level * soft).flatten(1), cloud.labels)


def only(cloud, num_classes):
    """As many samples, of the first classes alone: none appears that was not there, and many appear twice."""
    kept = torch.nonzero(cloud.labels < num_classes)[:, 0]
    return cloud.take(kept.repeat(len(cloud) // len(kept) + 1)[: len(cloud)])


DISTANCES = ["fid", "kid", "cmmd", "energy", "mmd", "sliced_wasserstein", "wasserstein"]


@pytest.mark.parametrize("name", DISTANCES)
def test_distances_rise_with_noise(halves, name):
    made, real = halves
    found = [value(name, noisy(made, level), real) for level in (0.0, 0.25, 0.5, 1.0)]
    assert found[0] < found[1] < found[2] < found[3]


@pytest.mark.parametrize("name", [name for name in DISTANCES if name != "wasserstein"])
def test_distances_rise_with_blur(halves, name):
    made, real = halves
    found = [value(name, blurred(made, level), real) for level in (0.0, 0.25, 0.5, 1.0)]
    assert found[0] < found[1] < found[2] < found[3]


def test_a_slight_blur_lowers_the_exact_distance_of_few_samples_as_its_docstring_warns(halves):
    made, real = halves
    found = [value("wasserstein", blurred(made, level), real) for level in (0.0, 0.25, 1.0)]
    assert found[1] < found[0] < found[2]


@pytest.mark.parametrize("name", DISTANCES)
def test_distances_rise_with_every_class_that_is_missing(halves, name):
    made, real = halves
    found = [value(name, only(made, num), real) for num in (10, 7, 4, 1)]
    assert found == sorted(found)


@pytest.mark.parametrize("name", ["precision", "density"])
def test_precision_and_density_fall_with_noise(halves, name):
    made, real = halves
    found = [value(name, noisy(made, level), real) for level in (0.0, 0.15, 0.3, 0.6)]
    assert found == sorted(found, reverse=True)
    assert found[3] < 0.1 * found[0]


@pytest.mark.parametrize("name", ["recall", "coverage", "vendi"])
def test_recall_coverage_and_vendi_fall_with_every_class_that_is_missing(halves, name):
    made, real = halves
    found = [value(name, only(made, num), real) for num in (10, 7, 4, 1)]
    assert found[0] > found[1] > found[2] > found[3]


def test_precision_stays_where_classes_are_missing(halves):
    made, real = halves
    whole, few = (metrics.build("precision").measure(only(made, num), real) for num in (10, 4))
    assert whole.low <= few.value <= 1


def test_one_sample_made_over_and_over_is_precise_and_covers_nothing(halves):
    made, real = halves
    copies = real.take(torch.full((len(made),), 5))
    assert value("precision", copies, real) == 1
    assert value("recall", copies, real) < 0.01  # the balls of copies have no size, and hold the copied sample alone
    assert value("coverage", copies, real) < 0.05
    assert value("vendi", copies, real) == pytest.approx(1, abs=1e-9)
    assert value("fid", copies, real) > 50 * value("fid", made, real)


def test_accuracy_falls_with_every_label_that_was_not_heeded(halves):
    made, real = halves
    found = []
    for share in (0.0, 0.2, 0.5):
        labels = made.labels.clone()
        labels[: int(share * len(made))] = (labels[: int(share * len(made))] + 1) % 10
        found.append(value("accuracy", Cloud(made.features, labels), real))
    assert found[0] > 0.95
    assert found == pytest.approx([found[0], 0.8 * found[0], 0.5 * found[0]], abs=0.03)
