"""Attention among the tokens of a transformer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .kernels.tokens import softmax
from .linear import Linear


class Attention(nn.Module):
    """Every token looks at every other: Linear(attention(Linear(x))), in several heads.

    With `qk_norm` queries and keys are scaled to a root mean square of one in each head, and by a learned factor for
    each channel; the scores then cannot grow without bound, which keeps large models and high rates stable.

    References:
        Attention Is All You Need (Vaswani et al., 2017), Section 3.2, https://arxiv.org/abs/1706.03762
        Scaling Vision Transformers to 22 Billion Parameters (Dehghani et al., 2023), Section 2, https://arxiv.org/abs/2302.05442

    Args:
        width: Channels that enter and leave.
        heads: A divisor of the width.
        qk_norm: Whether queries and keys are normalised.
        bias: Whether queries, keys and values have one.
    """

    def __init__(self, width: int, heads: int, qk_norm: bool = False, bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.project_in = Linear(width, 3 * width, bias=bias)
        self.project_out = Linear(width, width)
        self.query_norm = nn.RMSNorm(width // heads, eps=1e-6) if qk_norm else None
        self.key_norm = nn.RMSNorm(width // heads, eps=1e-6) if qk_norm else None

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, tokens, width), as x."""
        query, key, value = self.project_in(x).unflatten(2, (3, self.heads, -1)).unbind(2)
        if self.query_norm is not None and self.key_norm is not None:
            precise = self.query_norm.weight.dtype
            query, key = (
                norm(part.to(precise)).to(x.dtype) for norm, part in ((self.query_norm, query), (self.key_norm, key))
            )
        mixed = attend(query, key, value)  # (B, tokens, heads, width / heads)
        out: Tensor = self.project_out(mixed.flatten(2))
        return out


class CrossAttention(nn.Module):
    """Every token looks at the tokens of a condition, in several heads.

    References:
        High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022), Section 3.3, https://arxiv.org/abs/2112.10752

    Args:
        width: Channels that enter and leave.
        heads: A divisor of the width.
        context: The dimension of the tokens that are looked at.
    """

    def __init__(self, width: int, heads: int, context: int) -> None:
        super().__init__()
        self.heads = heads
        self.project_query = Linear(width, width, bias=False)
        self.project_context = Linear(context, 2 * width, bias=False)
        self.project_out = Linear(width, width)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Shape (B, tokens, width), as x, for a context of shape (B, others, dim)."""
        query = self.project_query(x).unflatten(2, (self.heads, -1))  # (B, tokens, heads, width / heads)
        key, value = self.project_context(context).unflatten(2, (2, self.heads, -1)).unbind(2)
        out: Tensor = self.project_out(attend(query, key, value).flatten(2))
        return out


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention with the softmax in float32, by the quickest way that the machine has.

    Args:
        query: Shape (B, tokens, heads, channels of a head).
        key: Shape (B, others, heads, channels of a head).
        value: As the keys.

    Returns:
        Shape of the queries.
    """
    query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
    if query.device.type != "cpu" or query.dtype != torch.bfloat16:
        return nn.functional.scaled_dot_product_attention(query, key, value).transpose(1, 2)
    # On a CPU in bfloat16 torch's own is 2 (1,024 tokens) to 6 times (64 tokens) slower than two products of matrices.
    folded = [part.flatten(0, 1) for part in (query, key, value)]  # each (B heads, tokens, channels)
    small = key.shape[2] <= 4 * query.shape[3]  # what the weights take is half of what an MLP keeps: keep them too
    mixed = _by_products(*folded) if small else _InTurns.apply(*folded)  # type: ignore[no-untyped-call]
    return mixed.unflatten(0, query.shape[:2]).transpose(1, 2)


SCORES_AT_ONCE = 2**21
"""Scores that stand in memory together: about what caches hold, and far from the memory of a machine."""

HEADS_AT_ONCE = 4
"""Heads for whose scores there is room; threads share them out."""


def _by_products(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of heads laid out one after the other, each argument of shape (heads, tokens, channels)."""
    nothing = query.new_zeros(1, 1, 1)
    scores = torch.baddbmm(nothing, query, key.transpose(1, 2), beta=0, alpha=query.shape[2] ** -0.5)
    return torch.bmm(softmax(scores), value)


class _InTurns(torch.autograd.Function):
    """`_by_products`, for a few heads and queries at a time, with the weights computed again for the gradients instead of kept."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        ctx.save_for_backward(query, key, value)
        out = torch.empty_like(query)
        for heads, rows in _turns(query, key):
            out[heads, rows] = _by_products(query[heads, rows], key[heads], value[heads])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        query, key, value = ctx.saved_tensors
        of_query = torch.empty_like(query)
        of_key, of_value = (torch.zeros(part.shape, device=part.device) for part in (key, value))  # sums of many turns
        for heads, rows in _turns(query, key):
            parts = [part.detach().requires_grad_() for part in (query[heads, rows], key[heads], value[heads])]
            with torch.enable_grad():
                mixed = _by_products(*parts)
            of_query[heads, rows], by_key, by_value = torch.autograd.grad(mixed, parts, gradient[heads, rows])
            of_key[heads] += by_key
            of_value[heads] += by_value
        return of_query, of_key.to(key.dtype), of_value.to(value.dtype)


def _turns(query: Tensor, key: Tensor) -> Iterator[tuple[slice, slice]]:
    """Which heads and which of their queries come together."""
    rows = min(query.shape[1], max(1, SCORES_AT_ONCE // HEADS_AT_ONCE // key.shape[1]))
    heads = max(1, SCORES_AT_ONCE // (rows * key.shape[1]))
    for head in range(0, query.shape[0], heads):
        for row in range(0, query.shape[1], rows):
            yield slice(head, head + heads), slice(row, row + rows)
