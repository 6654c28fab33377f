"""Noise levels and labels as vectors."""

import math

import numpy as np
import pytest
import torch

from unnoise.errors import BadOption, ShapeError
from unnoise.nn.embedding import ConditionEmbedding, sinusoidal


@pytest.mark.parametrize("dim", [2, 6, 64])
def test_the_embedding_is_that_of_the_paper(dim):
    levels = [0.0, 1.0, 0.25, 17.0, 999.0]
    half = dim // 2
    rows = []
    for level in levels:
        angles = [level / 10000 ** (i / half) for i in range(half)]
        rows.append([math.sin(a) for a in angles] + [math.cos(a) for a in angles])
    found = sinusoidal(torch.tensor(levels, dtype=torch.float64), dim)
    assert found.dtype == torch.float32
    # An angle near 1000 is known to 6e-5 in float32.
    np.testing.assert_allclose(found.numpy(), np.array(rows), atol=1e-4)


def test_whole_and_fractional_levels_are_told_apart():
    assert not torch.equal(sinusoidal(torch.tensor([3.0]), 8), sinusoidal(torch.tensor([3.5]), 8))


@pytest.mark.parametrize("dim", [0, 1, 63])
def test_odd_dimensions_are_refused(dim):
    with pytest.raises(BadOption, match=f"positive even number, got {dim}"):
        sinusoidal(torch.zeros(2), dim)
    with pytest.raises(BadOption, match=f"positive even number, got {dim}"):
        ConditionEmbedding(dim, 8)


@pytest.mark.parametrize("shape", [(), (2, 1)])
def test_levels_that_are_not_a_vector_are_refused(shape):
    with pytest.raises(ShapeError, match="noise level of shape"):
        sinusoidal(torch.zeros(shape), 4)


def test_the_null_label_is_the_last_row():
    embedding = ConditionEmbedding(8, 12, num_classes=3)
    assert embedding.label.weight.shape == (4, 12)
    levels, labels = torch.tensor([5.0, 5.0]), torch.tensor([1, 3])
    told = embedding(levels, labels)
    assert told.shape == (2, 12)
    with torch.no_grad():
        embedding.label.weight[3] += 1
    changed = embedding(levels, labels)
    assert torch.equal(changed[0], told[0])
    assert not torch.equal(changed[1], told[1])


def test_the_vector_is_what_the_formula_says():
    torch.manual_seed(0)
    embedding = ConditionEmbedding(8, 12, num_classes=2).double()
    levels, labels = torch.tensor([5.0, 700.0]), torch.tensor([1, 2])
    state = {key: value.numpy() for key, value in embedding.state_dict().items()}
    waves = sinusoidal(levels, 8).double().numpy()
    hidden = waves @ state["enter.weight"].T + state["enter.bias"]
    hidden = hidden / (1 + np.exp(-hidden))
    total = hidden @ state["leave.weight"].T + state["leave.bias"] + state["label.weight"][labels.numpy()]
    expected = total / (1 + np.exp(-total))
    np.testing.assert_allclose(embedding(levels, labels).detach().numpy(), expected, rtol=1e-12)
