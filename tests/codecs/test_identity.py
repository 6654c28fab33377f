"""The codec of pixels and points."""

import pytest
import torch

from unnoise.codecs.base import codecs
from unnoise.codecs.identity import IdentityCodec
from unnoise.errors import BadOption, DataError


def test_bytes_come_back_as_they_were():
    x = torch.arange(256).reshape(1, 1, 16, 16).to(torch.uint8)
    z = IdentityCodec.pixels().encode(x)
    assert z.dtype == torch.float32
    assert float(z.min()) == -1
    assert float(z.max()) == 1
    assert torch.equal(IdentityCodec.pixels().decode(z).round().to(torch.uint8), x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(3, 3), (200, 2), (3, 3, 3, 3), (2, 3, 4)])
def test_standardised_data_has_mean_0_and_variance_1_in_every_channel_and_comes_back(shape, dtype):
    generator = torch.Generator().manual_seed(0)
    shift = torch.arange(shape[1], dtype=dtype).reshape(1, -1, *[1] * (len(shape) - 2))
    x = torch.randn(shape, generator=generator, dtype=dtype) * 3 + shift
    codec = IdentityCodec.standardizing(x)
    z = codec.encode(x)
    assert z.dtype == dtype
    channels = z.double().transpose(0, 1).flatten(1)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(channels.mean(1), torch.zeros(shape[1], dtype=torch.float64), rtol=0, atol=tolerance)
    torch.testing.assert_close(
        channels.std(1, correction=0), torch.ones(shape[1], dtype=torch.float64), rtol=0, atol=tolerance
    )
    torch.testing.assert_close(codec.decode(z), x, rtol=0, atol=10 * tolerance)
    assert codec.shape(shape[1:]) == shape[1:]
    assert codecs.build(codecs.describe(codec)) == codec


def test_each_channel_has_its_own_scale_and_not_each_sample():
    codec = IdentityCodec((1.0, 2.0), (1.0, 10.0))
    assert codec.encode(torch.tensor([[1.0, 2.0], [2.0, 12.0]])).tolist() == [[0.0, 0.0], [1.0, 1.0]]
    assert codec.decode(torch.ones(2, 2)).tolist() == [[2.0, 12.0], [2.0, 12.0]]
    assert codec.decode(torch.ones(1, 2, 2, 2))[0, :, 0, 0].tolist() == [2.0, 12.0]


def test_a_constant_channel_and_a_scale_of_nothing_are_refused():
    with pytest.raises(DataError, match="channel 1 of the data is constant"):
        IdentityCodec.standardizing(torch.tensor([[1.0, 5.0], [2.0, 5.0]]))
    for scale in ((0.0,), (1.0, -1.0), ()):
        with pytest.raises(BadOption, match="scale: must be positive"):
            IdentityCodec((0.0,), scale)
