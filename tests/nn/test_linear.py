"""The linear layer, by either library, against torch's own."""

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad

from unnoise.nn import products
from unnoise.nn.linear import Linear


@pytest.fixture(params=[True, False], ids=["by oneDNN", "by MKL"])
def layers(request, monkeypatch):
    """Ours and torch's with the same weights, large enough for either library to be chosen."""
    monkeypatch.setattr(products, "_mkl_holds_back", lambda: request.param)
    torch.manual_seed(0)
    ours, theirs = Linear(96, 160), nn.Linear(96, 160)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


@pytest.mark.parametrize("shape", [(400, 96), (4, 100, 96), (2, 3, 70, 96), (2, 96), (96,)], ids=str)
def test_it_computes_what_torch_does_and_has_its_gradients(layers, shape):
    x = torch.randn(shape)
    found = []
    for layer in layers:
        entered = x.clone().requires_grad_()
        out = layer(entered)
        out.backward(torch.ones_like(out).cumsum(-1))
        found.append((out, entered.grad, layer.weight.grad, layer.bias.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 * other.abs().max().item())


def test_gradients_of_gradients_reach_inputs_and_weights(layers):
    x = torch.randn(400, 96)
    found = []
    for layer in layers:
        entered = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(layer(entered).square().sum(), entered, create_graph=True)
        slope.square().sum().backward()
        found.append((entered.grad, layer.weight.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * other.abs().max().item())


def test_derivatives_run_forward_too(layers):
    x, along = torch.randn(2, 400, 96)
    with forward_ad.dual_level():
        found, expected = (forward_ad.unpack_dual(layer(forward_ad.make_dual(x, along))).tangent for layer in layers)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_frozen_weights_get_no_gradient_and_pass_it_on(layers):
    ours, theirs = layers
    ours.requires_grad_(False)
    x = torch.randn(400, 96, requires_grad=True)
    ours(x).sum().backward()
    assert ours.weight.grad is None
    torch.testing.assert_close(x.grad, theirs.weight.detach().sum(0).expand(400, 96), rtol=1e-5, atol=1e-5)
