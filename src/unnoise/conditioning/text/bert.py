"""BERT and its kin: RoBERTa, DistilBERT, and the sentence encoders made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ...nn.spatial_transformer import TokenNorm
from ...options import option
from .base import TextEncoder, text_encoders
from .layers import Block, activation, visible

LAYER = r"encoder\.layer\.(\d+)\."
DISTILLED = r"transformer\.layer\.(\d+)\."


@dataclass(frozen=True)
class BertConfig:
    """The options of BERT; the defaults are those of its base model."""

    vocabulary: int = option(30522, help="most tokens", low=260, high=1_000_000)
    length: int = option(512, help="tokens that are read at once", low=4, high=4096)
    width: int = option(768, help="numbers of a token's state", low=1)
    depth: int = option(12, help="layers", low=0)
    heads: int = option(12, help="heads of attention, which divide the width", low=1)
    hidden: int = option(3072, help="numbers inside the two layers that follow attention", low=1)
    activation: Literal["quick_gelu", "gelu", "gelu_tanh", "relu", "silu"] = option(
        "gelu", help="what stands between them"
    )
    eps: float = option(1e-12, help="added to variances", low=0)
    offset: int = option(0, help="the number of the first place; 2 in RoBERTa", low=0)
    types: int = option(2, help="kinds of tokens, of which the first is meant; 0 where there are none", low=0)


@text_encoders.register("bert")
class BertEncoder(TextEncoder):
    """A transformer in which every token looks at all, normalised after each layer.

    References:
        BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding (Devlin et al., 2019),
        https://arxiv.org/abs/1810.04805
    """

    Config = BertConfig
    kinds = ("bert", "roberta", "xlm-roberta", "camembert", "distilbert")
    names = (
        (r"embeddings\.word_embeddings\.weight", "tokens.weight"),
        (r"embeddings\.position_embeddings\.weight", "positions"),
        (r"embeddings\.token_type_embeddings\.weight", "types"),
        (r"embeddings\.LayerNorm\.(.*)", r"norm.\1"),
        (LAYER + r"attention\.self\.(query|key|value)\.(.*)", r"blocks.\1.attention.\2.\3"),
        (LAYER + r"attention\.output\.dense\.(.*)", r"blocks.\1.attention.out.\2"),
        (LAYER + r"attention\.output\.LayerNorm\.(.*)", r"blocks.\1.norm1.\2"),
        (LAYER + r"intermediate\.dense\.(.*)", r"blocks.\1.mlp.enter.\2"),
        (LAYER + r"output\.dense\.(.*)", r"blocks.\1.mlp.leave.\2"),
        (LAYER + r"output\.LayerNorm\.(.*)", r"blocks.\1.norm2.\2"),
        (DISTILLED + r"attention\.q_lin\.(.*)", r"blocks.\1.attention.query.\2"),
        (DISTILLED + r"attention\.k_lin\.(.*)", r"blocks.\1.attention.key.\2"),
        (DISTILLED + r"attention\.v_lin\.(.*)", r"blocks.\1.attention.value.\2"),
        (DISTILLED + r"attention\.out_lin\.(.*)", r"blocks.\1.attention.out.\2"),
        (DISTILLED + r"sa_layer_norm\.(.*)", r"blocks.\1.norm1.\2"),
        (DISTILLED + r"ffn\.lin1\.(.*)", r"blocks.\1.mlp.enter.\2"),
        (DISTILLED + r"ffn\.lin2\.(.*)", r"blocks.\1.mlp.leave.\2"),
        (DISTILLED + r"output_layer_norm\.(.*)", r"blocks.\1.norm2.\2"),
    )
    prefixes = ("bert.", "roberta.", "distilbert.", "0.auto_model.")

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.width = config.width
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Parameter(torch.empty(config.length + config.offset, config.width))
        self.types = nn.Parameter(torch.zeros(config.types, config.width)) if config.types else None
        self.norm = TokenNorm(config.width, eps=config.eps)
        self.blocks = nn.ModuleList(
            Block(config.width, config.heads, config.hidden, config.activation, config.eps, after=True)
            for _ in range(config.depth)
        )
        nn.init.normal_(self.tokens.weight, std=0.02)
        nn.init.normal_(self.positions, std=0.02)

    @classmethod
    def config_of(cls, settings: dict[str, Any]) -> BertConfig:
        """See `TextEncoder.config_of`."""
        kind, distilled = settings["model_type"], settings["model_type"] == "distilbert"
        if settings.get("position_embedding_type", "absolute") != "absolute":
            raise ValueError(
                f"places of kind {settings['position_embedding_type']!r} are not known here, only 'absolute'"
            )
        if settings.get("sinusoidal_pos_embds"):
            raise ValueError("sinusoidal places are not known here")
        roberta = kind in ("roberta", "xlm-roberta", "camembert")
        offset = settings.get("pad_token_id", 1) + 1 if roberta else 0
        return BertConfig(
            vocabulary=settings.get("vocab_size", 50265 if roberta else 30522),
            length=settings.get("max_position_embeddings", 512) - offset,
            width=settings.get("dim" if distilled else "hidden_size", 768),
            depth=settings.get("n_layers" if distilled else "num_hidden_layers", 6 if distilled else 12),
            heads=settings.get("n_heads" if distilled else "num_attention_heads", 12),
            hidden=settings.get("hidden_dim" if distilled else "intermediate_size", 3072),
            activation=activation(settings.get("activation" if distilled else "hidden_act", "gelu")),  # type: ignore[arg-type]
            eps=settings.get("layer_norm_eps", 1e-12),
            offset=offset,
            types=0 if distilled else settings.get("type_vocab_size", 2),
        )

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """See `TextEncoder.forward`."""
        first = self.config.offset
        x = self.tokens(ids) + self.positions[first : first + ids.shape[1]]  # (B, tokens, width)
        x = self.norm(x if self.types is None else x + self.types[0])
        added = visible(mask, x.dtype)
        for block in self.blocks:
            x = block(x, added)
        return x

    def checkpointed_blocks(self) -> list[nn.Module]:
        """All blocks; see `TextEncoder.checkpointed_blocks`."""
        return list(self.blocks)
