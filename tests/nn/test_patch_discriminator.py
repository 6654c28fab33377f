"""A discriminator that judges patches: how many there are, how large they are, and each sample by itself."""

import pytest
import torch
from torch import nn

from unnoise.nn.group_norm import GroupNorm
from unnoise.nn.patch_discriminator import PatchDiscriminator


@pytest.mark.parametrize(("layers", "width", "patches"), [(1, 11, 24), (2, 23, 12), (3, 47, 6)])
def test_a_patch_is_as_wide_as_it_says(layers, width, patches):
    network = PatchDiscriminator(1, 2, 4, layers)
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, GroupNorm):  # whose statistics are of the whole sample
                setattr(parent, name, nn.Identity())
    x = torch.randn(1, 2, 48 * 2 ** (layers > 2), requires_grad=True)
    said = network(x)
    (slope,) = torch.autograd.grad(said[0, 0, said.shape[2] // 2], x)
    assert int((slope.abs().sum((0, 1)) > 0).sum()) == width
    assert network(torch.zeros(1, 2, 48)).shape == (1, 1, patches)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_every_sample_is_judged_by_itself(dims):
    network, x = PatchDiscriminator(dims, 2, 8, 1), torch.randn(3, 2, *[8] * dims)
    torch.testing.assert_close(network(x)[1:2], network(x[1:2]), rtol=1e-4, atol=1e-5)
