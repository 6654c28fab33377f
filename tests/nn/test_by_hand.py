"""Derivatives that were written out, against autograd."""

import pytest
import torch
from torch import nn

from unnoise.errors import BadOption, ShapeError
from unnoise.nn.base import Network
from unnoise.nn.lora import LoRASettings, attach
from unnoise.nn.mlp import MLP, MLPConfig
from unnoise.nn.seed_mlp import SeedMLP, SeedMLPConfig
from unnoise.nn.unet import UNet, UNetConfig

SMALL = MLPConfig(width=12, depth=2, expansion=1.5, embedding=6, fourier=2)
NETWORKS = {
    "seed": lambda: SeedMLP((2,), config=SeedMLPConfig(hidden=9, time_dim=4)),
    "seed with labels": lambda: SeedMLP((2,), None, 3, SeedMLPConfig(hidden=9, time_dim=4, label_dim=5)),
    "seed on pictures": lambda: SeedMLP((1, 2, 3), (2, 2, 3), 0, SeedMLPConfig(hidden=8, time_dim=4)),
    "mlp": lambda: MLP((2,), config=SMALL),
    "mlp with labels": lambda: MLP((3,), (6,), 4, SMALL),
    "mlp without waves": lambda: MLP((1, 2, 2), None, 0, MLPConfig(width=8, depth=1, embedding=4, fourier=0)),
}


def weighty(network):
    """Weights that are nowhere zero, so that every gradient is one."""
    torch.manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.5)
    return network


def zeros(network):
    return {name: torch.zeros_like(parameter) for name, parameter in network.named_parameters()}


def examples(network, batch, seed=1):
    generator = torch.Generator().manual_seed(seed)
    dtype = next(network.parameters()).dtype
    x = torch.randn(batch, *network.shape, generator=generator, dtype=dtype)
    level = 1000 * torch.rand(batch, generator=generator)
    slope = torch.randn(batch, *network.out_shape, generator=generator, dtype=dtype)
    label = torch.randint(0, network.num_classes + 1, (batch,), generator=generator)
    return x, level, {"label": label} if network.num_classes else None, slope


@pytest.mark.parametrize("name", NETWORKS)
def test_the_gradient_by_hand_is_that_of_autograd(name):
    network = weighty(NETWORKS[name]()).double()
    x, level, cond, slope = examples(network, 7)
    gradients = zeros(network)
    by_hand = network.by_hand(gradients)
    with torch.no_grad():
        answer = by_hand.forward(x, level, cond)
        by_hand.back(slope)
    expected = network(x, level, cond)
    expected.backward(slope)
    assert torch.allclose(answer, expected, rtol=1e-13, atol=1e-13)
    for weight, parameter in network.named_parameters():
        assert parameter.grad.abs().max() > 0
        torch.testing.assert_close(gradients[weight], parameter.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["seed with labels", "mlp with labels"])
def test_gradients_are_added_in_parts_of_a_batch(name):
    network = weighty(NETWORKS[name]()).double()
    x, level, cond, slope = examples(network, 9)
    whole, parts = zeros(network), zeros(network)
    for gradients, pieces in ((whole, [slice(0, 9)]), (parts, [slice(0, 4), slice(4, 9)])):
        by_hand = network.by_hand(gradients)
        with torch.no_grad():
            for piece in pieces:
                by_hand.forward(x[piece], level[piece], {"label": cond["label"][piece]})
                by_hand.back(slope[piece])
    for weight in whole:
        torch.testing.assert_close(parts[weight], whole[weight], rtol=1e-12, atol=1e-12)


def test_weights_are_looked_at_where_they_stand():
    network = weighty(SeedMLP((2,), config=SeedMLPConfig(hidden=4, time_dim=4)))
    by_hand = network.by_hand(zeros(network))
    x, level, _, _ = examples(network, 3)
    with torch.no_grad():
        network.last.bias.data = network.last.bias.data + 1
        network.first.weight.mul_(2)
        torch.testing.assert_close(by_hand.forward(x, level), network(x, level))


class Doubled(SeedMLP):
    def forward(self, x, noise_level, cond=None):
        return 2 * super().forward(x, noise_level, cond)


class Shifted(nn.Linear):
    def forward(self, x):
        return super().forward(x) + 1


def replaced(network):
    network.second = Shifted(256, 256)


def frozen(network):
    network.first.requires_grad_(False)


CHANGES = {
    "a layer of another kind": replaced,
    "adapters": lambda network: attach(network, LoRASettings(rank=2)),
    "a hook": lambda network: network.first.register_forward_hook(lambda *_: None),
    "a hook before": lambda network: network.register_forward_pre_hook(lambda *_: None),
    "a compiled call": lambda network: network.compile(),
    "another way forward": lambda network: setattr(network.first, "forward", lambda x: x),
    "frozen weights": frozen,
    "coarser numbers": lambda network: network.bfloat16(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_network_that_was_changed_is_left_to_autograd(change):
    network = SeedMLP((2,))
    gradients = zeros(network)
    assert network.by_hand(gradients) is not None
    CHANGES[change](network)
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    assert network.by_hand({name: g for name, g in gradients.items() if name in trained}) is None


def test_a_subclass_and_a_network_without_a_derivative_are_left_to_autograd():
    convolutional = UNet((1, 8, 8), config=UNetConfig(width=8, multipliers=(1,), blocks=1, groups=2))
    for network in (Doubled((2,)), convolutional):
        assert isinstance(network, Network)
        assert network.by_hand(zeros(network)) is None


@pytest.mark.parametrize("name", ["seed", "mlp"])
def test_what_a_network_refuses_is_refused_by_hand_too(name):
    network = NETWORKS[name]()
    by_hand = network.by_hand(zeros(network))
    with pytest.raises(ShapeError, match="expected x of shape"):
        by_hand.forward(torch.zeros(3, 5), torch.zeros(3))
    with pytest.raises(ShapeError, match="noise level"):
        by_hand.forward(torch.zeros(3, 2), torch.zeros(2))
    with pytest.raises(BadOption, match="conditioned on nothing"):
        by_hand.forward(torch.zeros(3, 2), torch.zeros(3), {"label": torch.zeros(3, dtype=torch.int64)})
