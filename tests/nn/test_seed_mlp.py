"""The network of textbooks, held against its description."""

import numpy as np
import pytest
import torch

from unnoise.errors import BadOption, IncompatibleParts
from unnoise.nn.seed_mlp import SeedMLP, SeedMLPConfig


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_it_has_as_many_parameters_as_its_description():
    assert count(SeedMLP((2,))) == (2 + 64) * 256 + 256 + 256 * 256 + 256 + 256 * 2 + 2 == 83_458
    assert count(SeedMLP((2,), num_classes=3)) == 83_458 + 16 * 256 + 4 * 16 == 87_618


def test_it_starts_small():
    torch.manual_seed(0)
    network = SeedMLP((2,), num_classes=50)
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any()
        else:
            # Four standard errors of a standard deviation that is estimated from so many weights.
            assert abs(parameter.std().item() / 0.01 - 1) < 4 / (2 * parameter.numel()) ** 0.5


@pytest.mark.parametrize("labels", [None, [0, 2, 3]])
def test_it_computes_what_the_description_computes(labels):
    torch.manual_seed(0)
    network = SeedMLP((2,), num_classes=0 if labels is None else 3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(10)
    weights = {name: value.numpy().astype(np.float64) for name, value in network.state_dict().items()}
    points = np.array([[0.5, -0.3], [2.0, 1.0], [-1.5, 0.0]])
    expected = []
    for i, (point, level) in enumerate(zip(points, [0, 3, 40], strict=True)):
        frequencies = np.exp(-np.log(10000) * np.arange(32) / 32)
        parts = [point, np.sin(level * frequencies), np.cos(level * frequencies)]
        if labels is not None:
            parts.append(weights["label.weight"][labels[i]])
        h = np.concatenate(parts)
        for layer in ("first", "second"):
            h = weights[f"{layer}.weight"] @ h + weights[f"{layer}.bias"]
            h = np.maximum(h, 0.01 * h)
        expected.append(weights["last.weight"] @ h + weights["last.bias"])
    cond = None if labels is None else {"label": torch.tensor(labels)}
    found = network(torch.tensor(points, dtype=torch.float32), torch.tensor([0.0, 3.0, 40.0]), cond)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found.detach().numpy(), np.array(expected), atol=1e-6)


def test_arrays_are_flattened():
    network = SeedMLP((2, 3, 4), (1, 3, 4))
    assert network(torch.randn(5, 2, 3, 4), torch.zeros(5)).shape == (5, 1, 3, 4)


def test_an_odd_embedding_is_refused_at_once():
    with pytest.raises(BadOption, match="even"):
        SeedMLP((2,), config=SeedMLPConfig(time_dim=7))


@pytest.mark.parametrize("wrong", [{"shape": ()}, {"shape": (0,)}, {"shape": (2,), "num_classes": -1}])
def test_a_network_of_nothing_is_refused(wrong):
    with pytest.raises(IncompatibleParts, match="a network needs"):
        SeedMLP(**wrong)
