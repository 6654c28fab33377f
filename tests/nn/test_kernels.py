"""What is done to tokens between products, by the kernels and by torch, against its definition in float64."""

import math

import pytest
import torch

from unnoise.nn.kernels import tokens
from unnoise.nn.modulation import gated, gelu, modulated_norm


@pytest.fixture(params=["kernels", "torch"], autouse=True)
def way(request, monkeypatch):
    """With the kernels, where there is a compiler, and without."""
    if request.param == "torch":
        monkeypatch.setattr(tokens, "library", lambda: None)


@pytest.fixture(params=[1, 3])
def threads(request):
    """Some threads; as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def gelu_by_definition(x):
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def norm_by_definition(x, shift, scale):
    mean = x.mean(-1, keepdim=True)
    variance = (x - mean).square().mean(-1, keepdim=True)
    return (x - mean) / (variance + 1e-6).sqrt() * (1 + scale[:, None]) + shift[:, None]


def gated_by_definition(x, gate, h):
    return x + gate[:, None] * h


def agree(function, definition, *inputs, tolerance):
    """Holds values and gradients of a function against those of its definition in float64."""
    exact = [x.detach().double().requires_grad_() for x in inputs]
    inputs = [x.detach().requires_grad_() for x in inputs]
    found, expected = function(*inputs), definition(*exact)
    assert found.dtype == inputs[0].dtype
    pull = torch.randn_like(found)
    found.backward(pull)
    expected.backward(pull.double())
    pairs = [(found, expected), *((x.grad, y.grad) for x, y in zip(inputs, exact, strict=True))]
    for one, other in pairs:
        assert one.shape == other.shape
        assert (one.double() - other).norm() <= tolerance * other.norm()


PRECISIONS = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.01)], ids=str
)
SHAPES = pytest.mark.parametrize("shape", [(3, 7, 37), (1, 20, 64), (5, 1, 16), (2, 33, 130)], ids=str)


@PRECISIONS
@SHAPES
def test_gelu_is_what_its_definition_says(dtype, tolerance, shape, threads):
    torch.manual_seed(0)
    agree(gelu, gelu_by_definition, 2 * torch.randn(shape).to(dtype), tolerance=tolerance)


@PRECISIONS
@SHAPES
def test_a_modulated_norm_is_what_its_definition_says(dtype, tolerance, shape, threads):
    torch.manual_seed(0)
    x = (3 + 2 * torch.randn(shape)).to(dtype)
    shift, scale = torch.randn(2, shape[0], shape[2]).to(dtype)
    agree(modulated_norm, norm_by_definition, x, shift, scale, tolerance=tolerance)


@PRECISIONS
@SHAPES
def test_a_gate_is_what_its_definition_says(dtype, tolerance, shape, threads):
    torch.manual_seed(0)
    x, h = torch.randn(2, *shape).to(dtype)
    agree(gated, gated_by_definition, x, torch.randn(shape[0], shape[2]).to(dtype), h, tolerance=tolerance)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_they_can_be_differentiated_twice_whatever_lies_where_in_memory(dtype):
    torch.manual_seed(0)
    x, h = (each.transpose(1, 2) for each in torch.randn(2, 2, 6, 5, dtype=dtype))  # (2, 5, 6), not contiguous
    steering = torch.randn(3, 2, 6, dtype=dtype)

    def curvature(norm, unit, gate, inputs):
        x, h, shift, scale, by = (each.clone(memory_format=torch.preserve_format).requires_grad_() for each in inputs)
        out = gate(x, by, unit(norm(h, shift, scale)))
        firsts = torch.autograd.grad(out.square().sum(), (x, h, shift, scale, by), create_graph=True)
        return torch.autograd.grad(sum(first.square().sum() for first in firsts), (x, h, shift, scale, by))

    inputs = [x, h, *steering]
    found = curvature(modulated_norm, gelu, gated, inputs)
    exact = [each.double() for each in inputs]
    expected = curvature(norm_by_definition, gelu_by_definition, gated_by_definition, exact)
    for one, other in zip(found, expected, strict=True):
        assert (one.double() - other).norm() < 1e-4 * other.norm()


def test_columns_of_one_matrix_and_tokens_of_any_order_in_memory_do():
    torch.manual_seed(0)
    steering = torch.randn(2, 30).bfloat16()
    shift, scale, gate = steering.chunk(3, dim=1)
    x, h = torch.randn(2, 10, 7, 2).bfloat16().permute(0, 3, 2, 1)
    found = gated(x, gate, gelu(modulated_norm(h, shift, scale)))
    steps = [part.double() for part in (x, gate, h, shift, scale)]
    expected = gated_by_definition(steps[0], steps[1], gelu_by_definition(norm_by_definition(*steps[2:])))
    assert (found.double() - expected).norm() < 0.01 * expected.norm()


def test_gelu_is_right_far_out_and_a_number_that_is_none_stays_so():
    x = torch.tensor([math.nan, math.inf, -0.0, 1e30, -1e30, 50.0, -50.0, -9.0, 3e-39]).bfloat16()
    found = gelu(x)
    assert found[0].isnan()
    assert torch.equal(found[1:4], x[1:4])
    assert found[5] == 50
    assert found[[4, 6, 7]].abs().max() < 1e-6
    assert found[8].abs() < 1e-38


def test_a_token_with_a_number_that_is_none_comes_out_without_any():
    x, steering = torch.randn(1, 3, 16).bfloat16(), torch.randn(2, 1, 16).bfloat16()
    x[0, 1, 5] = math.nan
    found = modulated_norm(x, *steering)
    assert found[0, 1].isnan().all()
    assert found[0, [0, 2]].isfinite().all()


@pytest.mark.parametrize("shape", [(2, 3, 1), (1, 5, 37), (3, 2, 4100)], ids=str)
@pytest.mark.parametrize("spread", [1, 300])
def test_a_softmax_is_what_its_definition_says(shape, spread, threads):
    torch.manual_seed(0)
    scores = (spread * torch.randn(shape)).bfloat16()
    expected = scores.double().softmax(-1)
    with torch.no_grad():
        found = tokens.softmax(scores)
    assert (found - expected).norm() < 0.004 * expected.norm()
    assert (found.double().sum(-1) - 1).abs().max() < 0.01


@pytest.mark.parametrize("learning", [False, True])
def test_a_softmax_of_what_is_no_number_is_none(learning):
    scores = torch.zeros(2, 40, dtype=torch.bfloat16)
    scores[0, 3] = math.nan
    with torch.set_grad_enabled(learning):
        found = tokens.softmax(scores)
    assert found[0].isnan().all()
    assert torch.equal(found[1], torch.full((40,), 1 / 40).bfloat16())
