"""The layers of transformers that read text."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...nn.linear import Linear
from ...nn.spatial_transformer import TokenNorm


def quick_gelu(x: Tensor) -> Tensor:
    """x sigmoid(1.702 x), which OpenAI's CLIP was trained with; any shape."""
    return x * torch.sigmoid(1.702 * x)


def gelu_tanh(x: Tensor) -> Tensor:
    """The Gaussian error linear unit by its hyperbolic tangent; any shape."""
    return functional.gelu(x, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "quick_gelu": quick_gelu,
    "gelu": functional.gelu,
    "gelu_tanh": gelu_tanh,
    "relu": functional.relu,
    "silu": functional.silu,
}


def activation(name: str) -> str:
    """The name here of an activation by its name in Hugging Face's files.

    Raises:
        ValueError: It is none of those that are known here.
    """
    same = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "swish": "silu"}
    if (found := same.get(name, name)) not in ACTIVATIONS:
        raise ValueError(f"the activation {name!r} is not known here")
    return found


def visible(mask: Tensor, dtype: torch.dtype, causal: bool = False) -> Tensor:
    """What is added to the scores of attention: nothing where a token may be looked at, minus infinity elsewhere.

    Args:
        mask: Which tokens are no padding, shape (B, tokens), bool.
        dtype: Of the scores.
        causal: Whether a token sees none that come after it.

    Returns:
        Shape (B, 1, tokens or 1, tokens).
    """
    seen = mask[:, None, None, :]
    if causal:
        tokens = mask.shape[1]
        seen = seen & torch.ones(tokens, tokens, dtype=torch.bool, device=mask.device).tril()
    return torch.zeros(seen.shape, dtype=dtype, device=mask.device).masked_fill(~seen, float("-inf"))


class SelfAttention(nn.Module):
    """Every token looks at the others, in several heads.

    Args:
        width: Channels that enter and leave.
        heads: How many.
        inner: Channels of all heads together; 0 for the width.
        bias: Whether the four layers have one.
        scale: What scores are multiplied by; 0 for one over the root of a head's channels.
    """

    def __init__(self, width: int, heads: int, inner: int = 0, bias: bool = True, scale: float = 0.0) -> None:
        super().__init__()
        self.heads, self.scale, inner = heads, scale or None, inner or width
        self.query, self.key, self.value = (Linear(width, inner, bias=bias) for _ in range(3))
        self.out = Linear(inner, width, bias=bias)

    def forward(self, x: Tensor, added: Tensor) -> Tensor:
        """Shape of x, (B, tokens, width); `added` to the scores is as `visible` gives it."""
        query, key, value = (
            layer(x).unflatten(2, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )  # each (B, heads, tokens, channels)
        mixed = functional.scaled_dot_product_attention(query, key, value, added.to(query.dtype), scale=self.scale)
        return self.out(mixed.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Two layers with an activation between."""

    def __init__(self, width: int, hidden: int, act: str) -> None:
        super().__init__()
        self.enter, self.leave, self.act = Linear(width, hidden), Linear(hidden, width), ACTIVATIONS[act]

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, tokens, width), as x."""
        return self.leave(self.act(self.enter(x)))


class Block(nn.Module):
    """Attention and a feed-forward network, each around a skip connection, normalised before (as CLIP) or after (as BERT)."""

    def __init__(self, width: int, heads: int, hidden: int, act: str, eps: float = 1e-5, after: bool = False) -> None:
        super().__init__()
        self.after = after
        self.norm1, self.norm2 = TokenNorm(width, eps=eps), TokenNorm(width, eps=eps)
        self.attention = SelfAttention(width, heads)
        self.mlp = FeedForward(width, hidden, act)

    def forward(self, x: Tensor, added: Tensor) -> Tensor:
        """Shape of x, (B, tokens, width); `added` to the scores is as `visible` gives it."""
        if self.after:
            x = self.norm1(x + self.attention(x, added))
            return self.norm2(x + self.mlp(x))
        x = x + self.attention(self.norm1(x), added)
        return x + self.mlp(self.norm2(x))
