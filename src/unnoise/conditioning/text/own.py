"""A text encoder of our own, small enough to learn beside a denoiser from nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...nn.spatial_transformer import TokenNorm
from ...options import option
from .base import TextEncoder, text_encoders
from .layers import Block, visible


@dataclass(frozen=True)
class OwnTextConfig:
    """The options of our own text encoder."""

    vocabulary: int = option(4096, help="most tokens that the tokenizer may learn", low=260, high=1_000_000)
    length: int = option(64, help="tokens that are read at once", low=4, high=4096)
    width: int = option(256, help="numbers of a token's state", low=1)
    depth: int = option(4, help="layers", low=0)
    heads: int = option(4, help="heads of attention, which divide the width", low=1)
    neighbours: int = option(
        0,
        help="tokens on either side that are mixed into each one; 6 where it matters which stands before which",
        low=0,
    )


class Neighbours(nn.Module):
    """Every token with those around it added, each channel weighted by how far off they stand, and on which side.

    Attention of random weights is about an average, and to an average "left" is the same before a word as after it. So "a ring left
    of a star" and "a star left of a ring" begin alike, and a denoiser that learns beside the encoder has no reason to tell them
    apart, nor the encoder to help it. Here they differ from the first step on.

    References:
        Primer: Searching for Efficient Transformers (So et al., 2021), Section 3, https://arxiv.org/abs/2109.08668

    Args:
        width: Channels that enter and leave.
        reach: Tokens on either side that are looked at.
    """

    def __init__(self, width: int, reach: int) -> None:
        super().__init__()
        self.mix = nn.Conv1d(width, width, 2 * reach + 1, padding=reach, groups=width, bias=False)
        nn.init.normal_(self.mix.weight, std=(2 * reach + 1) ** -0.5)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Shape of x, (B, tokens, width); padding, where the mask is not set, is not looked at."""
        seen = x.masked_fill(~mask[..., None], 0.0)
        mixed: Tensor = self.mix(seen.transpose(1, 2))
        return x + mixed.transpose(1, 2)


@text_encoders.register("transformer")
class OwnTextEncoder(TextEncoder):
    """A transformer in which every token of a text looks at all of them, normalised before each layer.

    References:
        Attention Is All You Need (Vaswani et al., 2017), https://arxiv.org/abs/1706.03762
        On Layer Normalization in the Transformer Architecture (Xiong et al., 2020), https://arxiv.org/abs/2002.04745
    """

    Config = OwnTextConfig

    def __init__(self, config: OwnTextConfig) -> None:
        super().__init__(config)
        self.width = config.width
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Parameter(torch.empty(config.length, config.width))
        self.neighbours = Neighbours(config.width, config.neighbours) if config.neighbours else None
        self.blocks = nn.ModuleList(
            Block(config.width, config.heads, 4 * config.width, "gelu") for _ in range(config.depth)
        )
        self.norm = TokenNorm(config.width)
        nn.init.normal_(
            self.tokens.weight
        )  # a layer adds 0.2 to each: small tokens drown in it, and words become alike
        nn.init.normal_(self.positions, std=0.5)

    @classmethod
    def config_of(cls, settings: dict[str, Any]) -> OwnTextConfig:
        """See `TextEncoder.config_of`; nobody else's file describes such an encoder."""
        raise ValueError("it is an encoder of unnoise's own, which stands in a model folder")

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """See `TextEncoder.forward`."""
        x = self.tokens(ids) + self.positions[: ids.shape[1]]  # (B, tokens, width)
        if self.neighbours is not None:
            x = self.neighbours(x, mask)
        added = visible(mask, x.dtype)
        for block in self.blocks:
            x = block(x, added)
        return self.norm(x)

    def checkpointed_blocks(self) -> list[nn.Module]:
        """All blocks; see `TextEncoder.checkpointed_blocks`."""
        return list(self.blocks)
