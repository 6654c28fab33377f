"""Attention among the tokens of a transformer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .conditions import Context
from .kernels.library import on_processor
from .kernels.tokens import softmax
from .linear import Linear

EPSILON = 1e-6
"""What is added to the mean square of a query or key before its root is taken."""

HIDDEN = -1e6
"""What is added to the score of a token that is not looked at: no weight is left of it in any precision."""


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
        asks: Whether the tokens look at others, and are not only looked at.
        leaves: Whether a linear layer follows the attention.
    """

    def __init__(
        self, width: int, heads: int, qk_norm: bool = False, bias: bool = True, asks: bool = True, leaves: bool = True
    ) -> None:
        super().__init__()
        self.heads = heads
        self.asks = asks
        self.project_in = Linear(width, (3 if asks else 2) * width, bias=bias)
        self.project_out = Linear(width, width) if leaves else None
        self.query_norm = nn.RMSNorm(width // heads, eps=EPSILON) if qk_norm and asks else None
        self.key_norm = nn.RMSNorm(width // heads, eps=EPSILON) if qk_norm else None

    def ask(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of tokens.

        Args:
            x: Shape (B, tokens, width).

        Returns:
            Each of shape (B, tokens, heads, width / heads); of queries none, where the tokens do not look at others.
        """
        parts = self.project_in(x).unflatten(2, (3 if self.asks else 2, self.heads, -1)).unbind(2)
        key, value = parts[-2:]
        query = parts[0] if self.asks else key[:, :0]
        return normed(self.query_norm, query), normed(self.key_norm, key), value

    def answer(self, mixed: Tensor) -> Tensor:
        """Shape (B, tokens, width), of what attention gives, shape (B, tokens, heads, width / heads)."""
        flat = mixed.flatten(2)
        return flat if self.project_out is None else self.project_out(flat)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, tokens, width), as x."""
        return self.answer(attend(*self.ask(x)))


class CrossAttention(nn.Module):
    """Every token looks at the tokens of a condition, in several heads.

    References:
        High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022), Section 3.3, https://arxiv.org/abs/2112.10752

    Args:
        width: Channels that enter and leave.
        heads: A divisor of the width.
        context: The dimension of the tokens that are looked at.
        qk_norm: Whether queries and keys are normalised.
        bias: Whether queries, keys and values have one.
    """

    def __init__(self, width: int, heads: int, context: int, qk_norm: bool = False, bias: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.project_query = Linear(width, width, bias=bias)
        self.project_context = Linear(context, 2 * width, bias=bias)
        self.project_out = Linear(width, width)
        self.query_norm = nn.RMSNorm(width // heads, eps=EPSILON) if qk_norm else None
        self.key_norm = nn.RMSNorm(width // heads, eps=EPSILON) if qk_norm else None
        self.columns = slice(0, 2 * width)
        """Where its keys and values stand among those that `keys_and_values` makes for a whole network."""

    def look_up(self, tokens: Tensor) -> Tensor:
        """Keys beside values, shape (B, others, 2 width), of tokens of shape (B, others, dim)."""
        both: Tensor = self.project_context(tokens)
        if self.key_norm is None:
            return both
        key, value = both.chunk(2, dim=2)
        return torch.cat([normed(self.key_norm, key.unflatten(2, (self.heads, -1))).flatten(2), value], dim=2)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """Shape (B, tokens, width), as x; zero before the last layer for a sample whose mask hides every token."""
        query = normed(self.query_norm, self.project_query(x).unflatten(2, (self.heads, -1)))
        both = self.look_up(context.tokens) if context.made is None else context.made[:, :, self.columns]
        key, value = both.unflatten(2, (2, self.heads, -1)).unbind(2)  # each (B, others, heads, width / heads)
        if context.mask is None:
            mixed = attend(query, key, value)
        else:
            some = context.mask.any(dim=1)
            # Where all is hidden, all is looked at and then set to zero: a softmax over nothing would not be a number.
            mixed = attend(query, key, value, context.mask | ~some[:, None]) * some[:, None, None, None]
        out: Tensor = self.project_out(mixed.flatten(2))
        return out


def _lookers(network: nn.Module) -> list[CrossAttention]:
    return [module for module in network.modules() if isinstance(module, CrossAttention)]


def share_columns(network: nn.Module) -> None:
    """Gives the cross-attention layers of a network their columns of `keys_and_values`, one after another."""
    start = 0
    for layer in _lookers(network):
        width = layer.project_context.out_features
        layer.columns, start = slice(start, start + width), start + width


def keys_and_values(network: nn.Module, tokens: Tensor) -> Tensor:
    """What all cross-attention layers of a network make of the tokens of a context.

    Args:
        network: Whose layers have their columns; see `share_columns`.
        tokens: Shape (B, others, dim).

    Returns:
        Shape (B, others, sum of 2 width over the layers).
    """
    return torch.cat([layer.look_up(tokens) for layer in _lookers(network)], dim=2)


def normed(norm: nn.RMSNorm | None, part: Tensor) -> Tensor:
    """Queries or keys of any shape (..., channels of a head), normalised in the precision of the norm's weight."""
    return part if norm is None else norm(part.to(norm.weight.dtype)).to(part.dtype)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention with the softmax in float32, by the quickest way that the machine has.

    Args:
        query: Shape (B, tokens, heads, channels of a head).
        key: Shape (B, others, heads, channels of a head).
        value: As the keys.
        mask: Which of the others are looked at, shape (B, others), bool, at least one of every sample; None for all.

    Returns:
        Shape of the queries.
    """
    query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
    if not on_processor(query) or query.dtype != torch.bfloat16:
        seen = None if mask is None else mask[:, None, None]
        if query.device.type == "meta" and torch.is_grad_enabled():
            # torch's own choice there is a way that keeps all scores, which it takes on no device.
            flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
            return flash(query, key, value, attn_mask=seen)[0].transpose(1, 2)
        return nn.functional.scaled_dot_product_attention(query, key, value, seen).transpose(1, 2)
    # On a CPU in bfloat16 torch's own is 2 (1,024 tokens) to 6 times (64 tokens) slower than two products of matrices.
    batch = query.shape[:2]
    query, key, value = (part.flatten(0, 1) for part in (query, key, value))  # each (B heads, tokens, channels)
    hidden = None
    if mask is not None:  # what is added to scores, shape (B heads, 1, others)
        away = torch.zeros(mask.shape, dtype=query.dtype).masked_fill_(~mask, HIDDEN)
        hidden = away.repeat_interleave(batch[1], dim=0)[:, None]
    small = key.shape[1] <= 4 * query.shape[2]  # what the weights take is half of what an MLP keeps: keep them too
    way = _by_products if small else _InTurns.apply
    mixed: Tensor = way(query, key, value, hidden)
    return mixed.unflatten(0, batch).transpose(1, 2)


SCORES_AT_ONCE = 2**21
"""Scores that stand in memory together: about what caches hold, and far from the memory of a machine."""

HEADS_AT_ONCE = 4
"""Heads for whose scores there is room; threads share them out."""


def _by_products(query: Tensor, key: Tensor, value: Tensor, hidden: Tensor | None = None) -> Tensor:
    """Attention of heads laid out one after the other, each of shape (heads, tokens, channels); `hidden`: (heads, 1, others)."""
    beginning, beta = (query.new_zeros(1, 1, 1), 0) if hidden is None else (hidden, 1)
    scores = torch.baddbmm(beginning, query, key.transpose(1, 2), beta=beta, alpha=query.shape[2] ** -0.5)
    return torch.bmm(softmax(scores), value)


class _InTurns(torch.autograd.Function):
    """`_by_products`, for a few heads and queries at a time, with the weights computed again for the gradients instead of kept."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, hidden: Tensor | None) -> Tensor:
        ctx.save_for_backward(query, key, value)
        ctx.hidden = hidden  # neither an input whose gradient is asked for nor an output
        out = torch.empty_like(query)
        for heads, rows in _turns(query, key):
            unseen = None if hidden is None else hidden[heads]
            out[heads, rows] = _by_products(query[heads, rows], key[heads], value[heads], unseen)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value = ctx.saved_tensors
        of_query = torch.empty_like(query)
        of_key, of_value = (torch.zeros(part.shape, device=part.device) for part in (key, value))  # sums of many turns
        for heads, rows in _turns(query, key):
            asked, found, given = (
                part.detach().requires_grad_() for part in (query[heads, rows], key[heads], value[heads])
            )
            unseen = None if ctx.hidden is None else ctx.hidden[heads]
            with torch.enable_grad():
                mixed = _by_products(asked, found, given, unseen)
            of_query[heads, rows], by_key, by_value = torch.autograd.grad(
                mixed, (asked, found, given), gradient[heads, rows]
            )
            of_key[heads] += by_key
            of_value[heads] += by_value
        return of_query, of_key.to(key.dtype), of_value.to(value.dtype), None


def _turns(query: Tensor, key: Tensor) -> Iterator[tuple[slice, slice]]:
    """Which heads and which of their queries come together."""
    rows = min(query.shape[1], max(1, SCORES_AT_ONCE // HEADS_AT_ONCE // key.shape[1]))
    heads = max(1, SCORES_AT_ONCE // (rows * key.shape[1]))
    for head in range(0, query.shape[0], heads):
        for row in range(0, query.shape[1], rows):
            yield slice(head, head + heads), slice(row, row + rows)
