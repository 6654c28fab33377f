"""The blocks of the U-Net."""

import pytest
import torch

from unnoise.nn.blocks import (
    AddedResidualBlock,
    Downsample,
    ResidualBlock,
    SelfAttention,
    Upsample,
    divisor,
    group_norm,
)

SIZES = {1: (7,), 2: (5, 6), 3: (3, 4, 5)}


silu = torch.nn.functional.silu


def normed(norm, x):
    """A normalisation by torch, without what stands around it."""
    return torch.nn.functional.group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps)


@pytest.mark.parametrize(
    ("number", "limit", "expected"), [(64, 32, 32), (48, 12, 12), (38, 9, 2), (37, 9, 1), (6, 0, 1)]
)
def test_the_largest_divisor_is_found(number, limit, expected):
    assert divisor(number, limit) == expected


@pytest.mark.parametrize("channels", [1, 3, 5, 8, 20, 37, 48, 64, 96, 130, 256])
def test_groups_divide_any_number_of_channels(channels):
    norm = group_norm(channels)
    assert channels % norm.num_groups == 0
    assert norm.num_groups <= 32
    assert channels // norm.num_groups >= min(4, channels)
    assert norm(torch.randn(2, channels, 3)).shape == (2, channels, 3)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_a_residual_block_starts_as_its_skip_connection(dims):
    x, told = torch.randn(3, 8, *SIZES[dims]), torch.randn(3, 16)
    assert torch.equal(ResidualBlock(dims, 8, 8, 16)(x, told), x)
    wider = ResidualBlock(dims, 8, 12, 16)
    torch.testing.assert_close(wider(x, told), wider.skip(x))


def test_a_residual_block_scales_and_shifts_after_the_second_norm():
    torch.manual_seed(0)
    block = ResidualBlock(2, 8, 8, 16).double()
    torch.nn.init.normal_(block.conv_out.weight)
    x, told = torch.randn(3, 8, 5, 6, dtype=torch.float64), torch.randn(3, 16, dtype=torch.float64)
    scale, shift = (told @ block.modulation.weight.T + block.modulation.bias).split(8, dim=1)
    h = normed(block.norm_out, block.conv_in(silu(normed(block.norm_in, x))))
    h = torch.einsum("bchw,bc->bchw", h, 1 + scale) + shift[:, :, None, None]
    torch.testing.assert_close(block(x, told), x + block.conv_out(silu(h)))


def test_an_added_residual_block_adds_before_the_second_norm():
    torch.manual_seed(0)
    block = AddedResidualBlock(2, 8, 12, 16).double()
    torch.nn.init.normal_(block.conv_out.weight)
    x, told = torch.randn(3, 8, 5, 6, dtype=torch.float64), torch.randn(3, 16, dtype=torch.float64)
    h = block.conv_in(silu(normed(block.norm_in, x))) + block.project(told)[:, :, None, None]
    expected = block.skip(x) + block.conv_out(silu(normed(block.norm_out, h)))
    torch.testing.assert_close(block(x, told), expected)


def test_dropout_drops_in_training_only():
    block = ResidualBlock(1, 8, 8, 16, dropout=0.5)
    torch.nn.init.normal_(block.conv_out.weight)
    x, told = torch.randn(2, 8, 9), torch.randn(2, 16)
    assert not torch.equal(block(x, told), block(x, told))
    block.eval()
    assert torch.equal(block(x, told), block(x, told))


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_attention_is_the_formula(dims):
    torch.manual_seed(0)
    attention = SelfAttention(8, head_channels=4).double()
    torch.nn.init.normal_(attention.project_out.weight)
    x = torch.randn(2, 8, *SIZES[dims], dtype=torch.float64)
    tokens = attention.norm(x).reshape(2, 8, -1).transpose(1, 2)
    query, key, value = attention.project_in(tokens).split(8, dim=2)
    heads = []
    for head in (slice(0, 4), slice(4, 8)):
        weights = torch.softmax(query[..., head] @ key[..., head].transpose(1, 2) / 4**0.5, dim=2)
        heads.append(weights @ value[..., head])
    expected = x + attention.project_out(torch.cat(heads, dim=2)).transpose(1, 2).reshape(x.shape)
    torch.testing.assert_close(attention(x), expected)


@pytest.mark.parametrize(
    ("channels", "head_channels", "heads"), [(64, 32, 2), (48, 32, 1), (96, 32, 3), (8, 32, 1), (40, 16, 2)]
)
def test_heads_divide_the_channels(channels, head_channels, heads):
    attention = SelfAttention(channels, head_channels)
    assert attention.heads == heads
    x = torch.randn(2, channels, 3, 3)
    assert torch.equal(attention(x), x)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_sizes_halve_with_rounding_up_and_come_back(dims):
    x = torch.randn(2, 8, *SIZES[dims])
    low = Downsample(dims, 8)(x)
    assert low.shape[2:] == tuple(-(-size // 2) for size in SIZES[dims])
    assert Upsample(dims, 8, 4)(low, x.shape[2:]).shape == (2, 4, *SIZES[dims])
    assert Downsample(dims, 8, behind=True)(x).shape[2:] == tuple(size // 2 for size in SIZES[dims])
