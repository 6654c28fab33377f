"""Attention among the tokens of a transformer."""

from __future__ import annotations

from torch import Tensor, nn


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
        self.project_in = nn.Linear(width, 3 * width)
        self.project_out = nn.Linear(width, width)
        self.query_norm = nn.RMSNorm(width // heads, eps=1e-6) if qk_norm else None
        self.key_norm = nn.RMSNorm(width // heads, eps=1e-6) if qk_norm else None

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, tokens, width), as x."""
        query, key, value = self.project_in(x).unflatten(2, (3, self.heads, -1)).unbind(2)
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query).to(x.dtype), self.key_norm(key).to(x.dtype)
        mixed = attend(query, key, value)  # (B, tokens, heads, width / heads)
        out: Tensor = self.project_out(mixed.flatten(2))
        return out


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention with the softmax in float32.

    Args:
        query: Shape (B, tokens, heads, channels of a head).
        key: Shape (B, others, heads, channels of a head).
        value: As the keys.

    Returns:
        Shape of the queries.
    """
    query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
    return nn.functional.scaled_dot_product_attention(query, key, value).transpose(1, 2)
