"""Attention by every way, against its definition in float64."""

import pytest
import torch

from unnoise.nn import attention
from unnoise.nn.attention import Attention, attend


def by_definition(query, key, value, mask=None):
    """softmax(Q K / sqrt(d)) V, each head for itself."""
    query, key, value = (part.double() for part in (query, key, value))
    scores = torch.einsum("bqhc,bkhc->bhqk", query, key) / query.shape[-1] ** 0.5
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None, None], float("-inf"))
    return torch.einsum("bhqk,bkhc->bqhc", scores.softmax(-1), value)


def triple(dtype, tokens, others, channels, heads=3):
    torch.manual_seed(0)
    shapes = [(2, n, heads, channels) for n in (tokens, others, others)]
    return [torch.randn(shape).to(dtype).requires_grad_() for shape in shapes]


def error(found, expected):
    """How far off, as a share of what is expected."""
    return ((found.double() - expected).norm() / expected.norm()).item()


SHAPES = {
    "as many tokens as channels": (16, 16, 16),
    "fewer": (5, 3, 8),
    "many more, and no round number": (70, 129, 16),
    "one channel": (4, 9, 1),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.01)], ids=str
)
@pytest.mark.parametrize("at_once", [1, 4000, 2**23], ids=lambda n: f"at most {n} scores")
@pytest.mark.parametrize("masked", [False, True], ids=["all are looked at", "some are"])
def test_it_is_what_its_definition_says_and_so_are_its_gradients(monkeypatch, shape, dtype, tolerance, at_once, masked):
    monkeypatch.setattr(attention, "SCORES_AT_ONCE", at_once)
    parts = triple(dtype, *shape)
    exact = [part.detach().double().requires_grad_() for part in parts]
    mask = torch.arange(shape[1]).expand(2, -1) < torch.tensor([[1], [shape[1] // 2 + 1]]) if masked else None
    found, expected = attend(*parts, mask), by_definition(*exact, mask)
    assert found.dtype == dtype
    assert error(found, expected) < tolerance
    pull = torch.randn_like(expected).to(dtype)
    found.backward(pull)
    expected.backward(pull.double())
    # Against the largest of the three, for those of queries and keys may all but cancel.
    scale = max(part.grad.norm() for part in exact)
    for part, reference in zip(parts, exact, strict=True):
        assert part.grad.dtype == dtype
        assert (part.grad.double() - reference.grad).norm() < 2 * tolerance * scale


@pytest.mark.parametrize("tokens", [8, 100])
def test_scores_of_hundreds_do_not_overflow(tokens):
    query, key, value = triple(torch.bfloat16, tokens, tokens, 16)
    with torch.no_grad():
        found = attend(30 * query, 30 * key, value)
    assert torch.isfinite(found).all()
    assert found.abs().max() <= value.abs().max()  # a mean of values


def test_normalised_queries_and_keys_stay_in_the_precision_of_the_tokens():
    torch.manual_seed(0)
    layer = Attention(32, 2, qk_norm=True)
    x = torch.randn(2, 7, 32)
    expected = layer(x)
    layer.project_in.bfloat16(), layer.project_out.bfloat16()
    found = layer(x.bfloat16())
    assert found.dtype == torch.bfloat16
    assert layer.query_norm.weight.dtype == torch.float32
    assert error(found, expected.double()) < 0.02
