"""The diffusion transformer, for sequences, images and videos."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from ..errors import BadOption, IncompatibleParts, ShapeError
from ..options import Checked, option
from .attention import Attention
from .base import Condition, Network, networks
from .dropout import Dropout
from .embedding import ConditionEmbedding
from .linear import Linear
from .modulation import gated, gelu, modulated_norm
from .patches import patchify, positions, unpatchify

FREQUENCIES = 256
"""Dimension of the sinusoidal embedding of the noise level."""


@dataclass(frozen=True)
class DiTConfig(Checked):
    """The options of the diffusion transformer.

    Raises:
        BadOption: The width is odd, or the heads do not divide it.
    """

    width: int = option(384, help="channels of a token, even", low=2)
    depth: int = option(12, help="blocks", low=1)
    heads: int = option(6, help="attention heads, a divisor of the width", low=1)
    patch: int | tuple[int, ...] = option(
        2, help="places of a patch along every axis, or a list with one number for each axis", low=1
    )
    mlp_ratio: float = option(4.0, help="units inside the MLP of a block, in widths", low=0.25)
    qk_norm: bool = option(False, help="normalise queries and keys: stable at high rates and in large models")
    dropout: float = option(0.0, help="share of values dropped inside the MLP of a block", low=0.0, high=1.0)

    def __post_init__(self) -> None:
        """Checks what no single range can say."""
        super().__post_init__()
        if self.width % 2:
            raise BadOption(f"width: must be even, got {self.width}")
        if self.width % self.heads:
            raise BadOption(f"heads: must divide the width {self.width}, got {self.heads}")


class DiTBlock(nn.Module):
    """Attention, then an MLP, each normalised, steered and gated by the condition (adaLN-Zero).

    x + gate * Attention(LayerNorm(x) * (1 + scale) + shift), then the same around Linear(GELU(Linear(...))). What steers
    it is made outside, for all blocks at once.

    References:
        Scalable Diffusion Models with Transformers (Peebles and Xie, 2023), Section 3.2, https://arxiv.org/abs/2212.09748
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        hidden = max(1, round(config.width * config.mlp_ratio))
        self.attention = Attention(config.width, config.heads, config.qk_norm)
        self.enter = Linear(config.width, hidden)
        self.dropout = Dropout(config.dropout)
        self.leave = Linear(hidden, config.width)

    def forward(self, x: Tensor, steering: Tensor) -> Tensor:
        """The tokens after the block.

        Args:
            x: Shape (B, tokens, width).
            steering: Shape (B, 6 width): shift, scale and gate of the attention, then those of the MLP.

        Returns:
            Shape of x.
        """
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = steering.chunk(6, dim=1)
        x = gated(x, gate, self.attention(modulated_norm(x, shift, scale)))
        hidden = gelu(self.enter(modulated_norm(x, mlp_shift, mlp_scale)))
        return gated(x, mlp_gate, self.leave(self.dropout(hidden)))


@networks.register("dit")
class DiT(Network):
    """A transformer over the patches of a sample, steered by the noise level and the label (adaLN-Zero).

    Reads samples of shape (C, L), (C, H, W) or (C, T, H, W) of any size that the patch divides. Every gate and the last
    layer are zero at the start: blocks are the identity, and the output is zero. The sizes of the paper, each with the
    patch that follows the slash (`S/4`: size S, patch 4):

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
        self.patch = _checked_patch(self.shape, self.out_shape, self.config.patch)
        width, depth = self.config.width, self.config.depth
        places = math.prod(self.patch)
        self.embedding = ConditionEmbedding(FREQUENCIES, width, num_classes)
        self.enter = Linear(places * self.shape[0], width)
        self.modulation = Linear(width, (6 * depth + 2) * width)
        self.blocks = nn.ModuleList(DiTBlock(self.config) for _ in range(depth))
        self.leave = Linear(width, places * self.out_shape[0])
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

    def checkpointed_blocks(self) -> Sequence[nn.Module]:
        """All blocks: each takes and gives tokens, and keeps about twenty times as much inside."""
        return list(self.blocks)

    def forward(self, x: Tensor, noise_level: Tensor, cond: Condition | None = None) -> Tensor:
        """The raw prediction; see `Network.forward`."""
        self.check(x, noise_level)
        size = tuple(x.shape[2:])
        _check_divides(self.patch, size, ShapeError)
        grid = tuple(whole // places for whole, places in zip(size, self.patch, strict=True))
        told = self.embedding(noise_level, self.labels(cond, x))  # (B, width)
        steering = self.modulation(told)  # (B, (6 depth + 2) width)
        *each, last = steering.split(6 * self.config.width, dim=1)
        tokens = self.enter(patchify(x, self.patch))  # (B, tokens, width)
        tokens = tokens + positions(grid, self.config.width, x.device).to(tokens.dtype)
        for block, own in zip(self.blocks, each, strict=True):
            tokens = block(tokens, own)
        out = self.leave(modulated_norm(tokens, *last.chunk(2, dim=1)))
        return unpatchify(out, size, self.patch)  # (B, *out_shape)


def _checked_patch(shape: tuple[int, ...], out_shape: tuple[int, ...], patch: int | tuple[int, ...]) -> tuple[int, ...]:
    """The patch along every axis of the data."""
    if not 2 <= len(shape) <= 4:
        known = "(C, L), (C, H, W) or (C, T, H, W)"
        raise IncompatibleParts(f"a transformer needs samples of shape {known}, got {shape}: take network 'mlp'")
    size = shape[1:]
    if out_shape[1:] != size:
        wanted = ", ".join(map(str, size))
        raise IncompatibleParts(
            f"a transformer keeps sizes: expected an output of shape (C, {wanted}), got {out_shape}"
        )
    whole = (patch,) * len(size) if isinstance(patch, int) else patch
    if len(whole) != len(size):
        raise IncompatibleParts(
            f"network.patch: expected one number or {len(size)}, one for each axis, got {list(whole)}"
        )
    _check_divides(whole, size, IncompatibleParts)
    return whole


def _check_divides(patch: Sequence[int], size: Sequence[int], error: type[Exception]) -> None:
    if any(whole % places for whole, places in zip(size, patch, strict=True)):
        given = f"data of size {' x '.join(map(str, size))} cannot be cut into patches of {' x '.join(map(str, patch))}"
        fitting = " x ".join(str(max(p, s - s % p)) for s, p in zip(size, patch, strict=True))
        divisors = [n for n in range(1, min(size) + 1) if all(s % n == 0 for s in size)]
        raise error(f"{given}: give data of size {fitting}, or a network.patch of {' or '.join(map(str, divisors))}")
