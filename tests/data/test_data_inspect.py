"""A look at a data set counts what is there and warns of what may spoil training."""

import json
import math

import numpy as np
import pytest
import torch

from unnoise.data.base import Dataset, Spec
from unnoise.data.digits import DigitsDataset
from unnoise.data.inspect import inspect_data


def points(x, **others):
    x = torch.as_tensor(x, dtype=torch.float32)
    return Dataset(x, Spec("points", tuple(x.shape[1:]), others.pop("class_names", ())), **others)


def test_a_report_of_the_digits_agrees_with_numpy():
    data = DigitsDataset().load()
    report = inspect_data(data)
    values = data.x.numpy().astype(np.float64)
    assert (report.count, report.kind, report.shape, report.dtype) == (1797, "image", (1, 8, 8), "uint8")
    assert report.values_per_sample == 64
    assert (report.low, report.high) == (0.0, 255.0)
    assert report.mean == pytest.approx(values.mean(), rel=1e-12)
    assert report.std == pytest.approx(values.std(), rel=1e-12)
    assert sum(report.labels.values()) == 1797
    assert report.labels["3"] == 183
    assert report.duplicates == 0
    assert report.warnings == ()


def test_statistics_do_not_depend_on_how_many_values_are_taken_at_once(monkeypatch, rng):
    data = points(1000 + rng.standard_normal((300, 3)))
    whole = inspect_data(data)
    monkeypatch.setattr("unnoise.data.inspect._VALUES_AT_ONCE", 20)
    parts = inspect_data(data)
    assert parts.mean == pytest.approx(whole.mean, rel=1e-13)
    assert parts.std == pytest.approx(whole.std, rel=1e-9)
    assert whole.std == pytest.approx(data.x.double().std(correction=0).item(), rel=1e-9)


def test_a_report_can_be_written_as_json():
    report = inspect_data(DigitsDataset().load())
    again = json.loads(json.dumps(report.as_dict()))
    assert again["labels"] == report.labels
    assert again["shape"] == [1, 8, 8]


def test_equal_samples_are_counted_and_shown():
    report = inspect_data(points([[0, 1], [2, 3], [0, 1], [4, 5], [2, 3], [0, 1]]))
    assert report.duplicates == 3
    assert report.duplicate_examples == ((0, 2, 5), (1, 4))
    assert "3 of 6 samples equal an earlier one." in report.warnings


def test_values_that_are_none_are_counted_and_left_out_of_the_statistics():
    report = inspect_data(points([[1.0, math.nan], [3.0, math.inf], [5.0, 7.0]]))
    assert report.not_finite == 2
    assert (report.low, report.high, report.mean) == (1.0, 7.0, 4.0)
    assert report.std == pytest.approx(math.sqrt(5))
    assert any(warning.startswith("2 values are NaN or infinite") for warning in report.warnings)


def test_a_set_without_any_finite_value_has_a_report_too():
    report = inspect_data(points([[math.nan, math.nan]] * 2))
    assert (report.low, report.high, report.mean, report.std) == (None, None, None, None)
    empty = inspect_data(points(torch.empty(0, 2)))
    assert (empty.count, empty.mean, empty.values_per_sample) == (0, None, 2)
    assert empty.warnings == ("There are only 0 samples: a model will learn them by heart.",)


def test_channels_that_never_change_are_named(rng):
    x = rng.standard_normal((60, 3))
    x[:, 1] = 4
    assert "1 of 3 channels never change (counted from 0: 1)." in inspect_data(points(x)).warnings
    assert "Every value is 4: there is nothing to learn." in inspect_data(points(np.full((60, 3), 4))).warnings


def test_labels_are_watched(rng):
    labels = torch.tensor([0] * 58 + [1] + [5])
    report = inspect_data(points(rng.standard_normal((60, 2)), labels=labels, class_names=("a", "b", "c")))
    assert report.labels == {"a": 58, "b": 1, "c": 0}
    assert "1 label lies outside of the 3 classes." in report.warnings
    assert "1 of 3 labels has no sample, e.g. 'c'." in report.warnings
    assert "The labels are very unbalanced: 'a' has 58 samples and 'b' 1." in report.warnings


def test_few_samples_captions_and_skipped_files_are_told():
    report = inspect_data(points([[1.0], [2.0]], texts=("a", "b"), skipped=("c.png: cannot identify image file",)))
    assert report.captions == 2
    assert report.skipped == ("c.png: cannot identify image file",)
    assert report.warnings == (
        "There are only 2 samples: a model will learn them by heart.",
        "1 part could not be read or used, e.g. c.png: cannot identify image file.",
    )


def test_labels_that_are_measurements_are_told(rng):
    names = tuple(map(str, range(60)))
    report = inspect_data(points(rng.standard_normal((60, 2)), labels=torch.arange(60), class_names=names))
    assert "There are 60 labels for 60 samples: are they measurements, not classes?" in report.warnings
