"""What every data set that needs no path keeps to."""

import pytest
import torch

from unnoise.data.base import datasets
from unnoise.options import option_fields

PATHLESS = [name for name in datasets if "path" not in option_fields(datasets.options_class(name))]
DRAWN = [name for name in PATHLESS if "seed" in option_fields(datasets.options_class(name))]


def some(name, number, **more):
    """A data set that needs no path, of so many samples where it has a choice."""
    counts = {"num_points", "number"} & set(option_fields(datasets.options_class(name)))
    return datasets.build({"name": name, **dict.fromkeys(counts, number), **more})


@pytest.fixture(params=PATHLESS)
def source(request):
    return some(request.param, 300)


def test_the_room_holds_the_known_data_sets():
    assert {
        "digits",
        "spiral",
        "circles",
        "moons",
        "checkerboard",
        "swiss_roll",
        "eight_gaussians",
        "three_shapes",
        "shapes",
    } <= set(PATHLESS)
    assert {"folder", "parquet", "array", "csv"} <= set(datasets) - set(PATHLESS)


def test_samples_are_as_the_specification_says(source):
    data = source.load()
    assert data.x.shape == (len(data), *data.spec.shape)
    assert data.x.dtype == (torch.uint8 if data.spec.kind == "image" else torch.float32)
    assert data.x.is_contiguous()
    assert not data.skipped
    data.check()


def test_labels_are_class_numbers_and_every_class_has_some(source):
    data = source.load()
    if data.labels is None:
        assert data.spec.num_classes == 0
        return
    assert data.labels.dtype == torch.int64
    assert data.labels.shape == (len(data),)
    assert data.labels.unique().tolist() == list(range(data.spec.num_classes))


def test_the_same_source_gives_the_same_samples_twice(source):
    torch.manual_seed(0)
    first = source.load()
    torch.manual_seed(1)
    second = source.load()
    assert torch.equal(first.x, second.x)
    assert first.fingerprint() == second.fingerprint()


def test_options_survive_a_round_trip(source):
    assert datasets.build(datasets.describe(source)) == source


def test_every_option_has_a_help_text():
    for name in datasets:
        assert all(entry["help"] for entry in datasets.schema(name).values())


@pytest.mark.parametrize("name", DRAWN)
def test_another_seed_gives_other_samples_in_the_number_asked_for(name):
    one, other = (some(name, 17, seed=seed).load() for seed in (0, 1))
    assert len(one) == len(other) == 17
    assert not torch.equal(one.x, other.x)
