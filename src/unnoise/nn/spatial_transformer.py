"""The transformer of latent diffusion, which stands at levels of a U-Net and takes what it is asked for by cross-attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import IncompatibleParts
from .attention import Attention, CrossAttention
from .blocks import divisor, group_norm
from .conditions import Context
from .dropout import Dropout
from .forgetting import forgetting
from .linear import Linear
from .modulation import geglu
from .patches import positions

EPSILON = 1e-6
"""What is added to the variances of the group normalisation."""


class TokenNorm(nn.LayerNorm):
    """LayerNorm with statistics and weights in float32 beside tokens of any precision."""

    def forward(self, x: Tensor) -> Tensor:
        """Shape of x, (B, tokens, width)."""
        if x.device.type == "cpu":
            return super().forward(x)
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)  # elsewhere torch wants one kind of numbers
        return nn.functional.layer_norm(x, self.normalized_shape, weight, bias, self.eps)


class TransformerBlock(nn.Module):
    """Self-attention, attention to a context where there is one, and a gated feed-forward network, each around a skip connection.

    x + Attention(LayerNorm(x)), x + CrossAttention(LayerNorm(x), context), x + Linear(GEGLU(Linear(LayerNorm(x)))).

    References:
        High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022), Appendix E.2.1, https://arxiv.org/abs/2112.10752
        GLU Variants Improve Transformer (Shazeer, 2020), Equation 6, https://arxiv.org/abs/2002.05202

    Args:
        width: Channels that enter and leave.
        heads: A divisor of the width.
        context: The dimension of the tokens of the context; 0 for none.
        dropout: The share of values dropped inside the feed-forward network, in [0, 1].
    """

    def __init__(self, width: int, heads: int, context: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm_attention = TokenNorm(width)
        self.attention = Attention(width, heads, bias=False)
        self.norm_context = TokenNorm(width) if context else None
        self.look_up = CrossAttention(width, heads, context) if context else None
        self.norm_feed = TokenNorm(width)
        self.enter = Linear(width, 8 * width)
        self.dropout = Dropout(dropout)
        self.leave = Linear(4 * width, width)

    def forward(self, x: Tensor, context: Context | None) -> Tensor:
        """Shape (B, tokens, width), as x, for a context; None where there is none."""
        x = x + forgetting(self.attention, self.norm_attention, x)
        look_up = self.look_up
        if look_up is not None and self.norm_context is not None and context is not None:
            x = x + forgetting(lambda h: look_up(h, context), self.norm_context, x)
        hidden: Tensor = forgetting(self.enter, self.norm_feed, x)
        out: Tensor = x + forgetting(lambda h: self.leave(self.dropout(h)), geglu, hidden)
        return out


class SpatialTransformer(nn.Module):
    """x + Linear(blocks(Linear(GroupNorm(x)))), with places laid out as tokens; the identity at the start.

    Channels lie innermost where convolutions want them so, and then no number is moved between places and tokens.

    References:
        High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022), Appendix E.2.1, https://arxiv.org/abs/2112.10752

    Args:
        channels: Channels that enter and leave.
        heads: Heads of attention; the nearest number below that divides the channels is taken.
        context: The dimension of the tokens of the context; 0 for none.
        depth: Blocks.
        groups: The most groups of the normalisation.
        dropout: The share of values dropped inside feed-forward networks, in [0, 1].
        places: Whether tokens are told where they lie, by sines.

    Raises:
        IncompatibleParts: Places are to be told, and the number of channels is odd.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        context: int,
        depth: int = 1,
        groups: int = 32,
        dropout: float = 0.0,
        places: bool = False,
    ) -> None:
        super().__init__()
        if places and channels % 2:
            raise IncompatibleParts(
                f"network.places: sines need an even number of channels, got {channels}: take another width"
            )
        heads = divisor(channels, heads)
        self.norm = group_norm(channels, groups, EPSILON)
        self.enter = Linear(channels, channels)
        self.blocks = nn.ModuleList(TransformerBlock(channels, heads, context, dropout) for _ in range(depth))
        self.leave = Linear(channels, channels)
        self.places = nn.Parameter(torch.ones(())) if places else None
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, x: Tensor, context: Context | None) -> Tensor:
        """Shape (B, channels, *size), as x, for a context; None where there is none."""
        tokens = self.enter(self.norm(x).flatten(2).transpose(1, 2))  # (B, places, channels)
        if self.places is not None:
            where = positions(tuple(x.shape[2:]), tokens.shape[2], x.device)  # (places, channels)
            tokens = tokens + (self.places * where).to(tokens.dtype)
        for block in self.blocks:
            tokens = block(tokens, context)
        out: Tensor = self.leave(tokens)
        return x + out.transpose(1, 2).reshape(x.shape)
