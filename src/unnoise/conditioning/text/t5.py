"""The encoder of T5, as its published weights want it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ...nn.linear import Linear
from ...options import option
from .base import TextEncoder, text_encoders
from .layers import ACTIVATIONS, SelfAttention, activation, visible

BLOCK = r"encoder\.block\.(\d+)\."


@dataclass(frozen=True)
class T5Config:
    """The options of T5's encoder; the defaults are those of version 1.1's small model."""

    vocabulary: int = option(32128, help="most tokens", low=260, high=1_000_000)
    length: int = option(512, help="tokens that are read at once", low=4, high=4096)
    width: int = option(512, help="numbers of a token's state", low=1)
    depth: int = option(8, help="layers", low=0)
    heads: int = option(6, help="heads of attention", low=1)
    head_width: int = option(64, help="numbers of a head", low=1)
    hidden: int = option(1024, help="numbers inside the layers that follow attention", low=1)
    activation: Literal["gelu", "gelu_tanh", "relu", "silu"] = option("gelu_tanh", help="what stands between them")
    gated: bool = option(True, help="whether a second layer is multiplied with what the activation gives")
    buckets: int = option(32, help="kinds of distances between tokens that attention knows", low=2)
    farthest: int = option(128, help="distance from which all are of one kind", low=2)
    eps: float = option(1e-6, help="added to mean squares", low=0)


class T5Norm(nn.RMSNorm):
    """Division by the root mean square, worked out in float32, with one weight for each number."""

    def forward(self, x: Tensor) -> Tensor:
        """Shape of x, (B, tokens, width)."""
        assert self.eps is not None
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        return self.weight.to(x.dtype) * (wide * (wide.square().mean(-1, keepdim=True) + self.eps).rsqrt()).to(x.dtype)


class T5Block(nn.Module):
    """Attention without scaling, and a feed-forward network, gated or not; normalised before each, and without a bias."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.norm1, self.norm2 = (T5Norm(config.width, eps=config.eps) for _ in range(2))
        self.attention = SelfAttention(
            config.width, config.heads, config.heads * config.head_width, bias=False, scale=1.0
        )
        self.enter = Linear(config.width, config.hidden, bias=False)
        self.gate = Linear(config.width, config.hidden, bias=False) if config.gated else None
        self.leave = Linear(config.hidden, config.width, bias=False)
        self.act = ACTIVATIONS[config.activation]

    def forward(self, x: Tensor, added: Tensor) -> Tensor:
        """Shape of x, (B, tokens, width); `added` to the scores has shape (B, heads, tokens, tokens)."""
        x = x + self.attention(self.norm1(x), added)
        h = self.norm2(x)
        inside = self.act(self.enter(h))
        return x + self.leave(inside if self.gate is None else inside * self.gate(h))


@text_encoders.register("t5")
class T5Encoder(TextEncoder):
    """A transformer that knows how far tokens are from each other, and not where they stand.

    References:
        Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer (Raffel et al., 2020), Section 2.1,
        https://arxiv.org/abs/1910.10683
    """

    Config = T5Config
    heads_divide = False
    kinds = ("t5", "mt5")
    names = (
        (r"shared\.weight", "tokens.weight"),
        (r"encoder\.final_layer_norm\.weight", "norm.weight"),
        (r"encoder\.block\.0\.layer\.0\.SelfAttention\.relative_attention_bias\.weight", "distances.weight"),
        (BLOCK + r"layer\.0\.SelfAttention\.q\.weight", r"blocks.\1.attention.query.weight"),
        (BLOCK + r"layer\.0\.SelfAttention\.k\.weight", r"blocks.\1.attention.key.weight"),
        (BLOCK + r"layer\.0\.SelfAttention\.v\.weight", r"blocks.\1.attention.value.weight"),
        (BLOCK + r"layer\.0\.SelfAttention\.o\.weight", r"blocks.\1.attention.out.weight"),
        (BLOCK + r"layer\.0\.layer_norm\.weight", r"blocks.\1.norm1.weight"),
        (BLOCK + r"layer\.1\.layer_norm\.weight", r"blocks.\1.norm2.weight"),
        (BLOCK + r"layer\.1\.DenseReluDense\.wi(?:_0)?\.weight", r"blocks.\1.enter.weight"),
        (BLOCK + r"layer\.1\.DenseReluDense\.wi_1\.weight", r"blocks.\1.gate.weight"),
        (BLOCK + r"layer\.1\.DenseReluDense\.wo\.weight", r"blocks.\1.leave.weight"),
        (r"encoder\.embed_tokens\.weight", "tokens.weight"),
    )

    def __init__(self, config: T5Config) -> None:
        super().__init__(config)
        self.width = config.width
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.distances = nn.Embedding(config.buckets, config.heads)
        self.blocks = nn.ModuleList(T5Block(config) for _ in range(config.depth))
        self.norm = T5Norm(config.width, eps=config.eps)
        self._initialise()

    def _initialise(self) -> None:
        # As in the paper's code: scores are not scaled, so queries begin small.
        width, inner = self.config.width, self.config.heads * self.config.head_width
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                fan = {"query": width * self.config.head_width, "out": inner, "leave": self.config.hidden, "tokens": 1}
                kind = name.split(".")[-2]
                nn.init.normal_(weight, std=fan.get(kind, width) ** -0.5)

    @classmethod
    def config_of(cls, settings: dict[str, Any]) -> T5Config:
        """See `TextEncoder.config_of`."""
        act = settings.get("feed_forward_proj", "relu")
        gated, kind = act.startswith("gated-"), act.removeprefix("gated-")
        return T5Config(
            vocabulary=settings.get("vocab_size", 32128),
            length=settings.get("n_positions", 512),
            width=settings.get("d_model", 512),
            depth=settings.get("num_layers", 6),
            heads=settings.get("num_heads", 8),
            head_width=settings.get("d_kv", 64),
            hidden=settings.get("d_ff", 2048),
            activation=activation("gelu_new" if kind == "gelu" and gated else kind),  # type: ignore[arg-type]
            gated=gated,
            buckets=settings.get("relative_attention_num_buckets", 32),
            farthest=settings.get("relative_attention_max_distance", 128),
            eps=settings.get("layer_norm_epsilon", 1e-6),
        )

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """See `TextEncoder.forward`."""
        x = self.tokens(ids)  # (B, tokens, width)
        kinds = distance_kinds(ids.shape[1], self.config.buckets, self.config.farthest).to(ids.device)
        added = visible(mask, x.dtype) + self.distances(kinds).permute(2, 0, 1)  # (B, heads, tokens, tokens)
        for block in self.blocks:
            x = block(x, added)
        return self.norm(x)

    def checkpointed_blocks(self) -> list[nn.Module]:
        """All blocks; see `TextEncoder.checkpointed_blocks`."""
        return list(self.blocks)


def distance_kinds(tokens: int, buckets: int, farthest: int) -> Tensor:
    """The kind of the distance from every token to every other: one each for the near ones, ever wider ones for the far.

    Args:
        tokens: n of them.
        buckets: Kinds, half of them for tokens before.
        farthest: Distance from which all are of one kind.

    Returns:
        Shape (n, n), int64, by the token that looks and the one that is looked at.
    """
    place = torch.arange(tokens, device="cpu")
    away = place[None] - place[:, None]
    half = buckets // 2
    near = half // 2
    size = away.abs()
    grown = (size.clamp(min=1).float() / near).log() / math.log(farthest / near) * (half - near)
    far = (near + grown.long()).clamp(max=half - 1)
    return half * (away > 0) + torch.where(size < near, size, far)
