"""The residual MLP."""

import math

import pytest
import torch

from unnoise.errors import BadOption
from unnoise.nn.mlp import MLP, MLPConfig


def test_it_gives_zero_until_trained():
    network = MLP((3, 4), num_classes=2)
    assert not network(torch.randn(5, 3, 4), torch.rand(5), {"label": torch.tensor([0, 1, 2, 0, 1])}).any()


def test_features_are_coordinates_and_their_waves():
    network = MLP((2,), config=MLPConfig(fourier=3))
    x = torch.tensor([[0.3, -1.2]])
    angles = [value * 2.0**octave for value in (0.3, -1.2) for octave in range(3)]
    expected = [0.3, -1.2, *map(math.sin, angles), *map(math.cos, angles)]
    torch.testing.assert_close(network.features(x), torch.tensor([expected]))
    plain = MLP((2,), config=MLPConfig(fourier=0))
    assert torch.equal(plain.features(x), x)


@pytest.mark.parametrize(
    "config", [MLPConfig(width=4, depth=1, expansion=0.25), MLPConfig(width=20, depth=5, fourier=0)]
)
def test_any_size_can_be_built(config):
    network = MLP((2, 3), (4,), config=config)
    assert network(torch.randn(7, 2, 3), torch.zeros(7)).shape == (7, 4)
    assert len(network.blocks) == config.depth


def test_octaves_are_no_weights():
    assert not [key for key in MLP((2,)).state_dict() if "octaves" in key]


def test_an_odd_embedding_is_refused():
    with pytest.raises(BadOption, match="even"):
        MLP((2,), config=MLPConfig(embedding=31))
