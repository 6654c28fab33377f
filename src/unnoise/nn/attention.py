"""Attention among the tokens of a transformer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

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
    """

    def __init__(self, width: int, heads: int, qk_norm: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.project_in = Linear(width, 3 * width)
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


SCORES_AT_ONCE = 2**23
"""Scores that stand in memory together: about a cache, and far from the memory of a machine."""


def _by_products(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of heads laid out one after the other, each argument of shape (heads, tokens, channels)."""
    nothing = query.new_zeros(1, 1, 1)
    scores = torch.baddbmm(nothing, query, key.transpose(1, 2), beta=0, alpha=query.shape[2] ** -0.5)
    return torch.bmm(scores.softmax(dim=2), value)  # torch takes a softmax of bfloat16 in float32


class _InTurns(torch.autograd.Function):
    """`_by_products`, a few heads at a time, with the weights computed again for the gradients instead of kept."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        ctx.save_for_backward(query, key, value)
        turns = zip(*(_turns(query, key, part) for part in (query, key, value)), strict=True)
        return torch.cat([_by_products(*heads) for heads in turns])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        query, key, value = ctx.saved_tensors
        turns = zip(*(_turns(query, key, part) for part in (query, key, value, gradient)), strict=True)
        found = []
        for *parts, pull in turns:
            heads = [part.detach().requires_grad_() for part in parts]
            with torch.enable_grad():
                mixed = _by_products(*heads)
            found.append(torch.autograd.grad(mixed, heads, pull))
        return tuple(torch.cat(parts) for parts in zip(*found, strict=True))


def _turns(query: Tensor, key: Tensor, part: Tensor) -> tuple[Tensor, ...]:
    return part.split(max(1, SCORES_AT_ONCE // (query.shape[1] * key.shape[1])))
