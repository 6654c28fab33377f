"""The diffusion transformer, for sequences, images and videos."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import BadOption, ShapeError
from ..options import Checked, option
from .attention import Attention, CrossAttention, keys_and_values, share_columns
from .base import Condition, Network, networks
from .conditions import Context
from .dropout import Dropout
from .embedding import ConditionEmbedding
from .forgetting import forgetting
from .linear import Linear
from .modulation import gated, gelu, modulated_norm
from .patches import check_divides, checked_patch, patchify, positions, unpatchify

FREQUENCIES = 256
"""Dimension of the sinusoidal embedding of the noise level."""

SIZES = {"S": (384, 12, 6), "B": (768, 12, 12), "L": (1024, 24, 16), "XL": (1152, 28, 16)}
"""Width, depth and heads by the name of a size."""


@dataclass(frozen=True)
class DiTConfig(Checked):
    """The options of the diffusion transformer.

    Where width, depth or heads are 0 they become those of the size.

    Raises:
        BadOption: There is no such size, the width is odd, or the heads do not divide it.
    """

    size: str = option("S", help="S, B, L or XL: which width, depth and heads are taken where they are 0")
    width: int = option(0, help="channels of a token, even; 0: those of the size", low=0)
    depth: int = option(0, help="blocks; 0: those of the size", low=0)
    heads: int = option(0, help="attention heads, a divisor of the width; 0: those of the size", low=0)
    patch: int | tuple[int, ...] = option(
        2, help="places of a patch along every axis, or a list with one number for each axis", low=1
    )
    mlp_ratio: float = option(4.0, help="units inside the MLP of a block, in widths", low=0.25)
    qk_norm: bool = option(False, help="normalise queries and keys: stable at high rates and in large models")
    dropout: float = option(0.0, help="share of values dropped inside the MLP of a block", low=0.0, high=1.0)
    context: int = option(0, help="dimension of the tokens that are asked for; 0: no tokens are", low=0)
    context_tokens: int = option(1, help="tokens of the condition that asks for nothing", low=1)
    pooled: int = option(0, help="dimension of a vector that is asked for beside them; 0: none is", low=0)
    long_skips: bool = option(False, help="join what leaves the first blocks with what enters the last ones")

    def __post_init__(self) -> None:
        """Fills in what the size says, and checks what no single range can say."""
        super().__post_init__()
        if self.size not in SIZES:
            raise BadOption(f"size: expected S, B, L or XL, got {self.size!r}")
        for name, of_size in zip(("width", "depth", "heads"), SIZES[self.size], strict=True):
            object.__setattr__(self, name, getattr(self, name) or of_size)
        if self.width % 2:
            raise BadOption(f"width: must be even, got {self.width}")
        if self.width % self.heads:
            raise BadOption(f"heads: must divide the width {self.width}, got {self.heads}")


class DiTBlock(nn.Module):
    """Attention, then an MLP, each normalised, steered and gated by the condition (adaLN-Zero).

    x + gate * Attention(LayerNorm(x) * (1 + scale) + shift), then the same around Linear(GELU(Linear(...))). What steers
    it is made outside, for all blocks at once. Between the two x + CrossAttention(x, context), where there is a context; before
    them Linear([x, skip]), where the output of an earlier block is joined.

    References:
        Scalable Diffusion Models with Transformers (Peebles and Xie, 2023), Section 3.2, https://arxiv.org/abs/2212.09748
        PixArt-alpha (Chen et al., 2023), Section 2.3, for the context, https://arxiv.org/abs/2310.00426
        All are Worth Words: A ViT Backbone for Diffusion Models (Bao et al., 2023), Section 3.1, for the skip,
        https://arxiv.org/abs/2209.12152
    """

    def __init__(self, config: DiTConfig, joins: bool = False) -> None:
        super().__init__()
        width, hidden = config.width, max(1, round(config.width * config.mlp_ratio))
        self.join = Linear(2 * width, width) if joins else None
        self.attention = Attention(width, config.heads, config.qk_norm)
        self.look_up = CrossAttention(width, config.heads, width, config.qk_norm, bias=True) if config.context else None
        self.enter = Linear(width, hidden)
        self.dropout = Dropout(config.dropout)
        self.leave = Linear(hidden, width)

    def forward(
        self, x: Tensor, steering: Tensor, context: Context | None = None, skip: Tensor | None = None
    ) -> Tensor:
        """The tokens after the block.

        Args:
            x: Shape (B, tokens, width).
            steering: Shape (B, 6 width): shift, scale and gate of the attention, then those of the MLP.
            context: What is looked up, of the same width, where there is something.
            skip: What left an earlier block, shape of x, where it is joined.

        Returns:
            Shape of x.
        """
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = steering.chunk(6, dim=1)
        if self.join is not None and skip is not None:
            x = self.join(torch.cat([x, skip], dim=2))
        x = gated(x, gate, forgetting(self.attention, modulated_norm, x, shift, scale))
        if self.look_up is not None and context is not None:
            x = x + self.look_up(x, context)
        hidden = forgetting(self.enter, modulated_norm, x, mlp_shift, mlp_scale)
        return gated(x, mlp_gate, forgetting(lambda h: self.leave(self.dropout(h)), gelu, hidden))


class ContextReader(nn.Module):
    """Linear(GELU(Linear(tokens))): the tokens of a context in the width of a network.

    References:
        PixArt-alpha (Chen et al., 2023), Section 2.3, https://arxiv.org/abs/2310.00426

    Args:
        dim: Of the tokens that enter.
        width: Of those that leave.
    """

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.enter = Linear(dim, width)
        self.leave = Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Shape (B, tokens, width) for tokens of shape (B, tokens, dim)."""
        out: Tensor = forgetting(self.leave, gelu, self.enter(tokens))
        return out


@networks.register("dit")
class DiT(Network):
    """A transformer over the patches of a sample, steered by the noise level and the label (adaLN-Zero), that looks up tokens.

    Reads samples of shape (C, L), (C, H, W) or (C, T, H, W) of any size that the patch divides. Every gate and the last
    layer are zero at the start: blocks are the identity, and the output is zero. With `context` every block looks up the tokens of
    a text by cross-attention, as in PixArt-alpha; with `pooled` a vector of the whole text is added to what steers the blocks; and
    labels go beside both. With `long_skips` the first blocks hand what leaves them to the last ones, as in U-ViT.

    The sizes of the paper, each with the patch that follows the slash (`S/4`: size S, patch 4):

    ======  =====  =====  =====
    size    width  depth  heads
    ======  =====  =====  =====
    S       384    12     6
    B       768    12     12
    L       1024   24     16
    XL      1152   28     16
    ======  =====  =====  =====

    One linear layer makes what steers all blocks, for it is asked for once a sample and not once a token.

    References:
        Scalable Diffusion Models with Transformers (Peebles and Xie, 2023), Section 3, https://arxiv.org/abs/2212.09748

    Raises:
        IncompatibleParts: The data is not a sequence, image or video, the patch does not divide its size or has another
            number of axes, or the output has another size than the input.
    """

    Config = DiTConfig
    any_size = True
    config: DiTConfig

    def __init__(
        self,
        shape: tuple[int, ...],
        out_shape: tuple[int, ...] | None = None,
        num_classes: int = 0,
        config: DiTConfig | None = None,
    ) -> None:
        super().__init__(shape, out_shape, num_classes, config)
        self.patch = checked_patch(self.shape, self.out_shape, self.config.patch)
        width, depth = self.config.width, self.config.depth
        places = math.prod(self.patch)
        if self.config.context:
            self.take_context(self.config.context_tokens, self.config.context)
        if self.config.pooled:
            self.take_pooled(self.config.pooled)
        self.embedding = ConditionEmbedding(FREQUENCIES, width, num_classes, pooled=self.config.pooled)
        self.read = ContextReader(self.config.context, width) if self.config.context else None
        self.enter = Linear(places * self.shape[0], width)
        self.modulation = Linear(width, (6 * depth + 2) * width)
        self.skips = (depth - 1) // 2 if self.config.long_skips else 0
        self.blocks = nn.ModuleList(DiTBlock(self.config, joins=i >= depth - self.skips) for i in range(depth))
        self.leave = Linear(width, places * self.out_shape[0])
        share_columns(self)
        self._initialise()

    def _initialise(self) -> None:
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        for weight in (p for p in self.embedding.parameters() if p.ndim == 2):
            nn.init.normal_(weight, std=0.02)
        for layer in (self.modulation, self.leave):
            nn.init.zeros_(layer.weight)
        for module in self.modules():
            if isinstance(module, CrossAttention):
                nn.init.zeros_(module.project_out.weight)
            if isinstance(module, DiTBlock) and module.join is not None:  # what is joined says nothing at first
                nn.init.eye_(module.join.weight)

    def checkpointed_blocks(self) -> Sequence[nn.Module]:
        """All blocks: each takes and gives tokens, and keeps about twenty times as much inside."""
        return list(self.blocks)

    def forward(self, x: Tensor, noise_level: Tensor, cond: Condition | None = None) -> Tensor:
        """The raw prediction; see `Network.forward`."""
        self.check(x, noise_level)
        size = tuple(x.shape[2:])
        check_divides(self.patch, size, ShapeError)
        grid = tuple(whole // places for whole, places in zip(size, self.patch, strict=True))
        told = self.embedding(noise_level, self.labels(cond, x), self.pooled(cond, x))  # (B, width)
        context = self._looked_up(cond, x)
        steering = self.modulation(told)  # (B, (6 depth + 2) width)
        *each, last = steering.split(6 * self.config.width, dim=1)
        tokens = self.enter(patchify(x, self.patch))  # (B, tokens, width)
        tokens = tokens + positions(grid, self.config.width, x.device).to(tokens.dtype)
        left: list[Tensor] = []
        for i, (block, own) in enumerate(zip(self.blocks, each, strict=True)):
            skip = left.pop() if i >= self.config.depth - self.skips else None
            tokens = block(tokens, own, context, skip)
            if i < self.skips:
                left.append(tokens)
        out = self.leave(modulated_norm(tokens, *last.chunk(2, dim=1)))
        return unpatchify(out, size, self.patch)  # (B, *out_shape)

    def digest(self, tokens: Tensor) -> Tensor | None:
        """The keys and values of every block; see `Network.digest`."""
        return None if self.read is None else keys_and_values(self, self.read(tokens))

    def _looked_up(self, cond: Condition | None, x: Tensor) -> Context | None:
        """The context as blocks take it, read unless it is known what they make of it."""
        context = self.context(cond, x)
        if context is None or self.read is None or context.made is not None:
            return context
        return context._replace(tokens=self.read(context.tokens))
