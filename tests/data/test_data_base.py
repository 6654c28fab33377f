"""Data sets are divided, named and checked."""

import pytest
import torch

from unnoise.data.base import Dataset, Spec
from unnoise.errors import DataError


@pytest.fixture
def data():
    x = torch.arange(40, dtype=torch.float32).reshape(20, 2)
    return Dataset(x, Spec("points", (2,), ("a", "b")), torch.arange(20) % 2, tuple(str(i) for i in range(20)))


@pytest.mark.parametrize(("fraction", "held_out"), [(0.0, 0), (0.05, 1), (0.25, 5), (0.9, 18)])
def test_the_parts_of_a_split_share_nothing_and_miss_nothing(data, fraction, held_out):
    training, held = data.split(fraction, seed=3)
    assert len(held) == held_out
    assert sorted([*training.texts, *held.texts], key=int) == list(data.texts)
    assert not set(training.texts) & set(held.texts)
    for part in (training, held):
        assert part.x[:, 0].tolist() == [2.0 * int(text) for text in part.texts]
        assert part.labels.tolist() == [int(text) % 2 for text in part.texts]


def test_a_split_is_the_same_for_one_seed_and_another_for_another(data):
    assert data.split(0.5, seed=1)[1].texts == data.split(0.5, seed=1)[1].texts
    assert data.split(0.5, seed=1)[1].texts != data.split(0.5, seed=2)[1].texts


def test_one_changed_byte_changes_the_fingerprint():
    x = torch.zeros(3, 1, 4, 4, dtype=torch.uint8)
    spec = Spec("image", (1, 4, 4))
    before = Dataset(x, spec).fingerprint()
    assert before == Dataset(x.clone(), spec).fingerprint()
    x[2, 0, 3, 3] = 1
    assert Dataset(x, spec).fingerprint() != before


@pytest.mark.parametrize("change", ["labels", "texts", "names"])
def test_labels_captions_and_class_names_belong_to_the_fingerprint(data, change):
    other = {
        "labels": Dataset(data.x, data.spec, 1 - data.labels, data.texts),
        "texts": Dataset(data.x, data.spec, data.labels, data.texts[::-1]),
        "names": Dataset(data.x, Spec("points", (2,), ("a", "c")), data.labels, data.texts),
    }[change]
    assert other.fingerprint() != data.fingerprint()


def test_an_empty_part_has_a_fingerprint_too(data):
    assert len(data.split(0.0)[1].fingerprint()) == 64


def test_check_refuses_no_samples_equal_samples_and_values_that_are_none(data):
    spec = Spec("points", (2,))
    with pytest.raises(DataError, match="no samples"):
        Dataset(torch.empty(0, 2), spec).check()
    with pytest.raises(DataError, match="all 3 samples are the same"):
        Dataset(torch.ones(3, 2), spec).check()
    x = data.x.clone()
    x[7, 1] = float("nan")
    with pytest.raises(DataError, match=r"1 of 20 samples hold NaN or infinity \(the first is number 7\)"):
        Dataset(x, spec).check()
