"""The text tower of CLIP, as its published weights want it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ...nn.linear import Linear
from ...nn.spatial_transformer import TokenNorm
from ...options import option
from .base import TextEncoder, text_encoders
from .layers import Block, activation, visible

LAYER = r"encoder\.layers\.(\d+)\."


@dataclass(frozen=True)
class ClipTextConfig:
    """The options of CLIP's text tower; the defaults are those of Stable Diffusion 1.x's."""

    vocabulary: int = option(49408, help="most tokens", low=260, high=1_000_000)
    length: int = option(77, help="tokens that are read at once", low=4, high=4096)
    width: int = option(768, help="numbers of a token's state", low=1)
    depth: int = option(12, help="layers", low=0)
    heads: int = option(12, help="heads of attention, which divide the width", low=1)
    hidden: int = option(3072, help="numbers inside the two layers that follow attention", low=1)
    activation: Literal["quick_gelu", "gelu", "gelu_tanh"] = option("quick_gelu", help="what stands between them")
    eps: float = option(1e-5, help="added to variances", low=0)
    projection: int = option(0, help="numbers that a whole text is projected to; 0 leaves it as wide as a token", low=0)


@text_encoders.register("clip")
class ClipTextEncoder(TextEncoder):
    """A transformer in which a token looks at those before it, so that the last one stands for the whole text.

    The states of padding are read as any others, for Stable Diffusion was trained so.

    References:
        Learning Transferable Visual Models From Natural Language Supervision (Radford et al., 2021), Section 2.4,
        https://arxiv.org/abs/2103.00020
    """

    Config = ClipTextConfig
    reads_padding = True
    kinds = ("clip", "clip_text_model")
    names = (
        (r"embeddings\.token_embedding\.weight", "tokens.weight"),
        (r"embeddings\.position_embedding\.weight", "positions"),
        (r"final_layer_norm\.(.*)", r"norm.\1"),
        (r"text_projection\.weight", "project.weight"),
        (LAYER + r"self_attn\.q_proj\.(.*)", r"blocks.\1.attention.query.\2"),
        (LAYER + r"self_attn\.k_proj\.(.*)", r"blocks.\1.attention.key.\2"),
        (LAYER + r"self_attn\.v_proj\.(.*)", r"blocks.\1.attention.value.\2"),
        (LAYER + r"self_attn\.out_proj\.(.*)", r"blocks.\1.attention.out.\2"),
        (LAYER + r"layer_norm([12])\.(.*)", r"blocks.\1.norm\2.\3"),
        (LAYER + r"mlp\.fc1\.(.*)", r"blocks.\1.mlp.enter.\2"),
        (LAYER + r"mlp\.fc2\.(.*)", r"blocks.\1.mlp.leave.\2"),
    )
    prefixes = ("text_model.",)

    def __init__(self, config: ClipTextConfig) -> None:
        super().__init__(config)
        self.width = config.width
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Parameter(torch.empty(config.length, config.width))
        self.blocks = nn.ModuleList(
            Block(config.width, config.heads, config.hidden, config.activation, config.eps) for _ in range(config.depth)
        )
        self.norm = TokenNorm(config.width, eps=config.eps)
        self.project = Linear(config.width, config.projection, bias=False) if config.projection else None
        nn.init.normal_(self.tokens.weight, std=0.02)
        nn.init.normal_(self.positions, std=0.01)

    @classmethod
    def config_of(cls, settings: dict[str, Any]) -> ClipTextConfig:
        """See `TextEncoder.config_of`."""
        text = settings.get("text_config") or settings
        return ClipTextConfig(
            vocabulary=text.get("vocab_size", 49408),
            length=text.get("max_position_embeddings", 77),
            width=text.get("hidden_size", 512),
            depth=text.get("num_hidden_layers", 12),
            heads=text.get("num_attention_heads", 8),
            hidden=text.get("intermediate_size", 2048),
            activation=activation(text.get("hidden_act", "quick_gelu")),  # type: ignore[arg-type]
            eps=text.get("layer_norm_eps", 1e-5),
            projection=settings.get("projection_dim", 512),  # 0 in the end where the file has no weights of it
        )

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """See `TextEncoder.forward`; a token sees none after it, and so padding at the end matters to no other."""
        x = self.tokens(ids) + self.positions[: ids.shape[1]]  # (B, tokens, width)
        added = visible(torch.ones_like(mask), x.dtype, causal=True)
        for block in self.blocks:
            x = block(x, added)
        return self.norm(x)

    @property
    def pooled_width(self) -> int:
        """See `TextEncoder.pooled_width`."""
        return int(self.config.projection or self.width)

    def pooled(self, states: Tensor, mask: Tensor) -> Tensor:
        """The state of the last token that is no padding, projected where there is a projection; see `TextEncoder.pooled`."""
        last = states[torch.arange(len(states), device=states.device), mask.sum(1) - 1]
        return last if self.project is None else self.project(last)

    def checkpointed_blocks(self) -> list[nn.Module]:
        """All blocks; see `TextEncoder.checkpointed_blocks`."""
        return list(self.blocks)
