"""The digits that come with the package."""

from importlib.resources import files

import numpy as np
import pytest

from unnoise.data.digits import DigitsDataset


def test_there_are_1797_digits_of_8_by_8_pixels_over_the_whole_range():
    data = DigitsDataset().load()
    assert data.x.shape == (1797, 1, 8, 8)
    assert (int(data.x.min()), int(data.x.max())) == (0, 255)
    assert data.spec.class_names == tuple("0123456789")
    assert data.labels[:10].tolist() == list(range(10))


def test_they_are_those_of_scikit_learn_scaled_to_8_bits():
    original = pytest.importorskip("sklearn.datasets").load_digits()
    data = DigitsDataset().load()
    np.testing.assert_array_equal(data.x[:, 0].numpy(), np.round(original.images * 255 / 16))
    np.testing.assert_array_equal(data.labels.numpy(), original.target)


def test_their_source_and_licence_are_named_beside_them():
    text = (files("unnoise.data") / "DIGITS_LICENCE.md").read_text(encoding="utf-8")
    assert "https://doi.org/10.24432/C50P49" in text
    assert "CC BY 4.0" in text
