"""Convolutions on data of any size, whose gradients oneDNN alone gets wrong in bfloat16."""

import itertools

import pytest
import torch

from unnoise.nn.convolution import convolution

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
