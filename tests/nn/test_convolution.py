"""Convolutions on data of any size, whose gradients oneDNN alone gets wrong in bfloat16."""

import itertools

import pytest
import torch

from unnoise.nn.convolution import Conv2d, convolution

SIZES = [size for dims in (1, 2, 3) for size in itertools.product((1, 2, 3), repeat=dims)]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_gradients_of_bfloat16_are_those_of_float32(size, stride):
    torch.manual_seed(0)
    layer = convolution(len(size), 24, 40, stride=stride).bfloat16()
    x = torch.randn(3, 24, *size).bfloat16()
    found = []
    for dtype in (torch.bfloat16, torch.float32):
        layer.to(dtype).zero_grad()
        spoilt = torch.full((40 * 24 * 27 * 4,), torch.nan)  # what would be found in memory that nobody has written to
        del spoilt
        inputs = x.detach().to(dtype, copy=True).requires_grad_()
        out = layer(inputs)
        out.float().square().sum().backward()
        found.append([out.float(), inputs.grad.float(), layer.weight.grad.float(), layer.bias.grad.float()])
    for rough, fine in zip(*found, strict=True):
        assert (rough - fine).norm() <= 0.02 * fine.norm()


def test_sizes_are_divided_by_the_stride_and_rounded_up():
    x = torch.randn(2, 3, 7, 4)
    assert convolution(2, 3, 5)(x).shape == (2, 5, 7, 4)
    assert convolution(2, 3, 5, stride=2)(x).shape == (2, 5, 4, 2)
    assert convolution(2, 3, 5, size=1)(x).shape == (2, 5, 7, 4)
    assert not convolution(2, 3, 5, zero=True)(x).any()


def test_single_places_are_a_product_of_matrices(monkeypatch):
    torch.manual_seed(0)
    layer = Conv2d(12, 20, 1)
    x = torch.randn(3, 12, 5, 7).contiguous(memory_format=torch.channels_last).requires_grad_()
    found = layer(x)
    assert found.is_contiguous(memory_format=torch.channels_last)
    pull = torch.randn_like(found)
    weights = layer.weight, layer.bias
    wide = [each.detach().double().requires_grad_() for each in (x, *weights)]
    exact = torch.nn.functional.conv2d(*wide)
    torch.testing.assert_close(found, exact.float(), rtol=1e-5, atol=1e-6)
    gradients = torch.autograd.grad(found, (x, *weights), pull)
    for one, other in zip(gradients, torch.autograd.grad(exact, wide, pull.double()), strict=True):
        torch.testing.assert_close(one, other.float(), rtol=1e-5, atol=1e-5)
    # It is no convolution of torch's then, whose gradients of such layers are slow.
    monkeypatch.setattr(torch.nn.Conv2d, "forward", lambda *_: None)
    assert torch.equal(layer(x), found)
    assert all(other(x) is None for other in (Conv2d(12, 20, 1, stride=2), Conv2d(12, 20, 1, padding=1)))
    assert layer(x.detach().contiguous()) is None
