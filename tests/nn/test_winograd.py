"""Convolutions with a quarter of the multiplications, against the plain sum in float64."""

import pytest
import torch
from torch.nn.functional import conv2d

from unnoise.nn.base import networks
from unnoise.nn.convolution import Conv2d
from unnoise.nn.kernels import normed, winograd
from unnoise.nn.kernels.library import library

pytestmark = pytest.mark.skipif(library() is None, reason="there is no C++ compiler here")

SHAPES = [(16, 32, 32, 8, 8), (6, 64, 32, 16, 12), (3, 32, 40, 23, 31), (70, 40, 64, 4, 4), (1, 128, 136, 32, 32)]


def innermost(x):
    return x.contiguous(memory_format=torch.channels_last)


def batch(samples, channels, height, width):
    return innermost(torch.randn(samples, channels, height, width))


def far(found, exact):
    return float((found.detach().double() - exact.detach()).norm() / exact.detach().norm())


@pytest.fixture(params=[1, 3])
def threads(request):
    """Some threads; as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_results_and_gradients_are_those_of_the_plain_sum(shape, bias, threads):
    samples, channels, leaving, height, width = shape
    torch.manual_seed(0)
    layer = Conv2d(channels, leaving, 3, padding=1, bias=bias)
    x = batch(samples, channels, height, width).requires_grad_()
    assert winograd.fits(x, layer)
    weights = [layer.weight, *([layer.bias] if bias else [])]
    found = layer(x)
    pull = torch.randn(found.shape)  # not channels innermost
    gradients = torch.autograd.grad(found, (x, *weights), pull)
    wide = [each.detach().double().requires_grad_() for each in (x, *weights)]
    exact = conv2d(*wide, padding=1)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert far(found, exact) < 3e-6
    for one, other in zip(gradients, torch.autograd.grad(exact, wide, pull.double()), strict=True):
        assert one.shape == other.shape
        assert far(one, other) < 3e-6


def test_weights_and_tiles_that_do_not_fit_at_once_are_worked_out_in_parts(monkeypatch, threads):
    torch.manual_seed(0)
    x, weight, bias = batch(9, 40, 16, 16), torch.randn(72, 40, 3, 3), torch.randn(72)
    whole = winograd.convolved(x, weight, bias)
    pull = innermost(torch.randn_like(whole))
    back = winograd.convolved(pull, weight, None, back=True)
    monkeypatch.setattr(winograd, "_HELD", 1)
    monkeypatch.setattr(winograd, "_AT_ONCE", 1)
    assert torch.equal(winograd.convolved(x, weight, bias), whole)
    assert torch.equal(winograd.convolved(pull, weight, None, back=True), back)


def test_it_is_as_exact_as_torchs_own_in_float32():
    torch.manual_seed(0)
    layer, x = Conv2d(256, 256, 3, padding=1), batch(4, 256, 16, 16)
    exact = conv2d(x.double(), layer.weight.double(), layer.bias.double(), padding=1)
    own = far(layer(x), exact)
    assert own < 2e-6
    assert own < 4 * far(conv2d(x, layer.weight, layer.bias, padding=1), exact)


def test_a_sample_does_not_depend_on_the_others(threads):
    torch.manual_seed(0)
    layer, x = Conv2d(64, 64, 3, padding=1), batch(40, 64, 16, 16)
    with torch.no_grad():
        whole = layer(x)
        parts = torch.cat([layer(innermost(x[i : i + 8])) for i in range(0, 40, 8)])
    assert torch.equal(parts, whole)


def test_it_can_be_differentiated_twice():
    torch.manual_seed(0)
    layer, x = Conv2d(32, 32, 3, padding=1), batch(16, 32, 8, 8)

    def curvature(x, weight, bias, function):
        first = torch.autograd.grad(function(x, weight, bias).pow(3).sum(), (x, weight), create_graph=True)
        return torch.autograd.grad(sum(each.square().sum() for each in first), (x, weight, bias))

    inputs = [each.detach().clone(memory_format=torch.preserve_format) for each in (x, layer.weight, layer.bias)]
    found = curvature(*(each.requires_grad_() for each in inputs), winograd.convolve)
    wide = [each.detach().double().requires_grad_() for each in inputs]
    exact = curvature(*wide, lambda x, weight, bias: conv2d(x, weight, bias, padding=1))
    assert max(far(one, other) for one, other in zip(found, exact, strict=True)) < 1e-4


def test_kinds_and_devices_that_stand_for_all_others_do_not_matter():
    layer, x = Conv2d(32, 32, 3, padding=1), batch(16, 32, 8, 8)
    found = layer(x)
    with torch.device("meta"):
        again = layer(x)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        wide = layer(x)
    finally:
        torch.set_default_dtype(before)
    assert torch.equal(found, again)
    assert torch.equal(found, wide)


def test_gradients_that_nobody_asks_for_are_not_made():
    layer, x = Conv2d(32, 32, 3, padding=1), batch(16, 32, 8, 8)
    layer.weight.requires_grad_(False)
    layer(x).sum().backward()
    assert layer.weight.grad is None
    assert torch.equal(layer.bias.grad, torch.full((32,), 16.0 * 64))
    assert x.grad is None


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (Conv2d(32, 32, 3, padding=1), torch.randn(16, 32, 8, 8)),  # channels are not innermost
        (Conv2d(32, 32, 3, padding=1), batch(16, 32, 8, 8).double()),
        (Conv2d(32, 32, 3, padding=1), batch(16, 32, 8, 8).bfloat16()),
        (Conv2d(32, 32, 3, padding=1), batch(1, 32, 8, 8)),  # too few tiles
        (Conv2d(32, 32, 3, padding=1), batch(64, 32, 5, 5)),  # tiles that hang over
        (Conv2d(32, 32, 3, padding=1), batch(16, 32, 8, 8).to("meta")),
        (Conv2d(32, 32, 3, padding=1, device="meta"), batch(16, 32, 8, 8)),
        (Conv2d(36, 32, 3, padding=1), batch(16, 36, 8, 8)),
        (Conv2d(32, 8, 3, padding=1), batch(16, 32, 8, 8)),
        (Conv2d(32, 32, 3, padding=1, groups=2), batch(16, 32, 8, 8)),
        (Conv2d(32, 32, 3, padding=1, stride=2), batch(16, 32, 8, 8)),
        (Conv2d(32, 32, 3), batch(16, 32, 8, 8)),
        (Conv2d(32, 32, 1), batch(16, 32, 8, 8)),
        (Conv2d(32, 32, 3, padding=1, padding_mode="circular"), batch(16, 32, 8, 8)),
    ],
)
def test_what_it_cannot_do_or_would_not_be_faster_is_left_to_torch(layer, x):
    assert not winograd.fits(x, layer)


def test_a_number_that_is_none_reaches_its_neighbours():
    layer, x = Conv2d(32, 32, 3, padding=1), batch(16, 32, 8, 8)
    x[3, 5, 2, 2] = torch.nan
    found = layer(x)
    assert found[3, :, 1:4, 1:4].isnan().all()
    assert found[:3].isfinite().all()


def test_a_network_gives_and_learns_what_it_does_without_kernels(monkeypatch):
    cls = networks["ddpm_unet"]
    torch.manual_seed(0)
    network = cls((3, 16, 16), config=cls.Config(width=32, multipliers=[1, 2]))
    for parameter in network.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    x, level = torch.randn(8, 3, 16, 16), torch.linspace(0, 900, 8)

    def learned():
        network.zero_grad()
        out = network(x, level)
        out.square().mean().backward()
        return [out.detach(), *(parameter.grad.clone() for parameter in network.parameters())]

    calls = []
    for kernel in (winograd, normed):
        convolve = kernel.convolve
        monkeypatch.setattr(kernel, "convolve", lambda *asked, own=convolve: calls.append(asked) or own(*asked))
    ours = learned()
    for kernel in (winograd, normed):
        monkeypatch.setattr(kernel, "fits", lambda *_: False)
    theirs = learned()
    assert len(calls) > 12
    for one, other in zip(ours, theirs, strict=True):
        assert far(one, other.double()) < 2e-5 or float(other.norm()) < 1e-5
