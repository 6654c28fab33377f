"""The way down of the U-Net alone."""

import pytest
import torch

from unnoise.errors import IncompatibleParts, ShapeError
from unnoise.nn.encoder import UNetEncoder
from unnoise.nn.unet import UNetConfig

SMALL = UNetConfig(width=8, multipliers=(1, 2), blocks=1, head_channels=8)
SHAPES = [(2, 9), (3, 8, 6), (1, 3, 4, 5)]


def made(shape, classes=0):
    torch.manual_seed(0)
    network = UNetEncoder(shape, (5,), classes, SMALL)
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.2)
    return network


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_gives_a_few_numbers_for_each_sample_whatever_stands_beside_it(shape):
    network, x, levels = made(shape).requires_grad_(False), torch.randn(3, *shape), torch.tensor([0.0, 300.0, 900.0])
    said = network(x, levels)
    assert said.shape == (3, 5)
    torch.testing.assert_close(network(x[1:2], levels[1:2])[0], said[1], rtol=1e-4, atol=1e-5)
    assert float((network(x, levels.flip(0)) - said)[0].abs().max()) > 1e-4


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradients_reach_every_parameter_and_every_value(shape):
    network, x = made(shape, classes=3), torch.randn(2, *shape, requires_grad=True)
    network(x, torch.tensor([10.0, 500.0]), {"label": torch.tensor([0, 2])}).square().sum().backward()
    assert all(float(p.grad.abs().max()) > 0 for name, p in network.named_parameters() if "label" not in name)
    assert bool((x.grad != 0).all())


def test_it_says_nothing_at_the_start():
    said = UNetEncoder((3, 8, 8), (5,), 0, SMALL)(torch.randn(2, 3, 8, 8), torch.zeros(2))
    assert not bool(said.any())


def test_what_it_cannot_read_is_refused():
    with pytest.raises(IncompatibleParts, match="needs samples of shape"):
        UNetEncoder((2,), (5,))
    with pytest.raises(IncompatibleParts, match="smaller than 2"):
        UNetEncoder((3, 1, 8), (5,), 0, SMALL)
    with pytest.raises(ShapeError, match="expected x of shape"):
        made((3, 8, 8))(torch.zeros(2, 1, 8, 8), torch.zeros(2))
