"""Every network learns: it fits a batch, and tells labels apart."""

import pytest
import torch

from unnoise.nn.base import networks
from unnoise.options import build

OPTIONS = {
    "unet": {"width": 8, "multipliers": (1, 2), "blocks": 1},
    "dit": {"width": 32, "depth": 2, "heads": 2, "patch": 2},
}
SHAPES = [("seed_mlp", (2,)), ("mlp", (2,)), ("unet", (1, 8)), ("unet", (1, 4, 4)), ("dit", (1, 8)), ("dit", (1, 4, 4))]


def fit(network, x, levels, target, cond, steps, rate):
    """The mean squared error before and after some steps of Adam on one batch."""
    optimiser = torch.optim.Adam(network.parameters(), lr=rate)
    losses = []
    for _ in range(steps):
        loss = (network(x, levels, cond) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses[0], losses[-1]


@pytest.mark.parametrize(("name", "shape"), SHAPES)
@pytest.mark.parametrize("labelled", [False, True])
def test_it_fits_a_batch(name, shape, labelled):
    torch.manual_seed(0)
    num_classes = 3 if labelled else 0
    config = build(networks.options_class(name), OPTIONS.get(name, {}))
    network = networks[name](shape, None, num_classes, config)
    x, levels, target = torch.randn(16, *shape), torch.linspace(0, 999, 16), torch.randn(16, *shape)
    cond = None
    if labelled:
        # The same samples at the same level, which only their labels tell apart.
        x, levels = x[:1].expand(3, *shape), levels[:1].expand(3)
        target, cond = target[:3], {"label": torch.arange(3)}
    first, last = fit(network, x, levels, target, cond, steps=100, rate=1e-2)
    assert last < first / 20


def test_waves_beside_the_coordinates_help_with_fine_structure():
    def error(fourier):
        torch.manual_seed(0)
        config = build(networks.options_class("mlp"), {"width": 64, "fourier": fourier})
        network = networks["mlp"]((1,), config=config)
        x = torch.linspace(-2, 2, 128)[:, None]
        return fit(network, x, torch.zeros(128), (12 * x).sin(), None, steps=100, rate=2e-3)[1]

    assert error(4) < error(0) / 5
