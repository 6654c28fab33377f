"""Weights in blocks give what weights give."""

import copy

import pytest
import torch

from unnoise.nn.blocks import Upsample
from unnoise.nn.convolution import convolution
from unnoise.nn.linear import Linear
from unnoise.nn.packing import _of_doubled, pack, packs

pytestmark = pytest.mark.skipif(not packs(), reason="bfloat16 has no blocks on this processor")


def batch(shape):
    """Data in the order in which it takes blocks."""
    x = torch.randn(shape).bfloat16()
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


LAYERS = {
    "a convolution": (lambda: convolution(2, 24, 40), (2, 24, 9, 7)),
    "one that halves": (lambda: convolution(2, 24, 24, stride=2), (2, 24, 9, 7)),
    "one that covers a place": (lambda: convolution(2, 24, 40, size=1), (2, 24, 1, 2)),
    "a linear layer": (lambda: Linear(24, 40), (2, 5, 24)),
    "one without bias": (lambda: Linear(24, 40, bias=False), (7, 24)),
}
BOTH = pytest.mark.parametrize(("make", "shape"), LAYERS.values(), ids=LAYERS)


def pair(make):
    """A layer in bfloat16, and its packed twin."""
    torch.manual_seed(0)
    plain = make().bfloat16()
    packed = copy.deepcopy(plain)
    pack(packed)
    return plain, packed


def agree(found, expected):
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert (found - expected).norm() <= 0.004 * expected.norm()


@BOTH
@pytest.mark.parametrize("innermost", [False, True])
def test_predictions_are_the_same_for_data_of_any_shape(make, shape, innermost):
    plain, packed = pair(make)
    order = torch.channels_last if innermost and len(shape) == 4 else torch.contiguous_format
    with torch.no_grad():
        for places in (1, 3, 2):
            x = torch.randn(places * shape[0], *shape[1:]).bfloat16().contiguous(memory_format=order)
            found = packed(x)
            agree(found, plain(x))
            assert found.is_contiguous(memory_format=order)
    assert (packed.packed.blocks is not None) == (innermost or len(shape) < 4)  # whether they were used


@BOTH
def test_gradients_go_by_the_weights(make, shape):
    plain, packed = pair(make)
    with torch.no_grad():
        packed(batch(shape))
    x = batch(shape).requires_grad_()
    expected, found = (torch.autograd.grad(layer(x).float().square().sum(), x)[0] for layer in (plain, packed))
    assert torch.equal(found, expected)


@BOTH
def test_what_is_computed_in_float32_and_what_is_saved_do_not_change(make, shape):
    plain, packed = pair(make)
    with torch.no_grad():
        packed(batch(shape))
        packed(batch(shape))
        assert packed.state_dict().keys() == plain.state_dict().keys()
        x = torch.randn(shape)
        assert torch.equal(packed.float()(x), plain.float()(x))


@pytest.mark.parametrize("size", [(5, 7), (1, 1), (2, 3)], ids=str)
def test_a_convolution_of_doubled_data_is_what_it_is_without_blocks(size):
    plain, packed = pair(lambda: Upsample(2, 24, 40))
    x = batch((2, 24, *size))
    doubled = torch.Size(2 * each for each in size)
    with torch.no_grad():
        found = packed(x, doubled)
        agree(found, plain(x, doubled))
        assert found.is_contiguous(memory_format=torch.channels_last)
        assert packed.packed.blocks is not None
        other = batch((3, 24, 4, 4))
        agree(packed(other, (8, 8)), plain(other, (8, 8)))
        odd = torch.Size(2 * each - (each > 1) for each in size)
        agree(packed(x, odd), plain(x, odd))


def test_four_layers_of_sums_of_weights_are_one_on_doubled_data_to_rounding():
    torch.manual_seed(0)
    weight, x = torch.randn(5, 3, 3, 3), torch.randn(2, 3, 4, 6, dtype=torch.float64)
    expected = torch.nn.functional.conv2d(x.repeat_interleave(2, 2).repeat_interleave(2, 3), weight.double(), padding=1)
    every = torch.nn.functional.conv2d(x, _of_doubled(weight).double(), padding=1).unflatten(1, (2, 2, 5))
    for row in (0, 1):
        for column in (0, 1):
            found = every[:, row, column, :, row : row + 4, column : column + 6]
            torch.testing.assert_close(found, expected[:, :, row::2, column::2], rtol=1e-5, atol=1e-5)


def test_a_copy_makes_blocks_of_its_own():
    plain, packed = pair(lambda: Linear(24, 40))
    x = torch.randn(3, 24).bfloat16()
    with torch.no_grad():
        packed(x)
        other = copy.deepcopy(packed)
        other.weight.mul_(2)
        plain.weight.mul_(2)
        agree(other(x), plain(x))


def test_derivatives_by_torch_func_and_by_dual_numbers_are_as_before():
    plain, packed = pair(lambda: Linear(24, 40))
    x, along = torch.randn(2, 3, 24).bfloat16()
    with torch.no_grad():
        packed(x)
        expected, found = (torch.func.jvp(layer, (x,), (along,))[1] for layer in (plain, packed))
        assert torch.equal(found, expected)
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(x, along)
            assert torch.equal(torch.autograd.forward_ad.unpack_dual(packed(dual)).tangent, expected)
