"""The transformer of FLUX: words and places first apart and then as one, with positions that turn queries and keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import BadOption, IncompatibleParts
from ..options import option
from .attention import Attention
from .base import Condition, networks
from .forgetting import forgetting
from .joint import JointBlock, JointConfig, JointNetwork, turned_attention
from .linear import Linear
from .modulation import gated, gelu, modulated_norm
from .patches import rotations


@dataclass(frozen=True)
class FluxConfig(JointConfig):
    """The options of the transformer of FLUX; `FLUX_1_DEV` holds those of FLUX.1.

    Raises:
        BadOption: The width is odd, the heads do not divide it, a head has an odd number of channels, they are not enough for
            the axes, or there is no block.
    """

    double_blocks: int = option(4, help="blocks with weights of their own for words and for places", low=0)
    single_blocks: int = option(8, help="blocks in which words and places are alike", low=0)
    axes: tuple[int, ...] = option(
        (), help="channels of a head for the position along each axis, even; none: seven eighths in equal parts", low=0
    )
    guidance: bool = option(False, help="whether it is told the scale of a guidance that was distilled into it")

    def __post_init__(self) -> None:
        """Checks what no single range can say."""
        super().__post_init__()
        head = self.width // self.heads
        if head % 2:
            raise BadOption(f"heads: a head must have an even number of channels, got {head}")
        if not self.double_blocks + self.single_blocks:
            raise BadOption("double_blocks, single_blocks: expected at least one block of either kind")
        if any(axis % 2 for axis in self.axes) or sum(self.axes) > head:
            raise BadOption(f"axes: expected even numbers, together at most {head}, got {list(self.axes)}")

    def axes_of(self, dims: int) -> tuple[int, ...]:
        """Channels of a head for the position along each of so many axes."""
        head = self.width // self.heads
        return self.axes or ((head - head // 8) // dims // 2 * 2,) * dims


FLUX_1_DEV = FluxConfig(
    width=3072, heads=24, context=4096, pooled=768, double_blocks=19, single_blocks=38, axes=(56, 56), guidance=True
)
"""11.9 billion parameters, for latents of 16 channels; FLUX.1 schnell is the same without guidance."""


class SingleBlock(nn.Module):
    """Attention and an MLP beside each other: x + gate * Linear([attention(y), GELU(Linear(y))]) for y = LayerNorm(x), steered.

    References:
        FLUX.1 (Black Forest Labs, 2024), https://github.com/black-forest-labs/flux
        Scaling Vision Transformers to 22 Billion Parameters (Dehghani et al., 2023), Section 2, for layers side by side,
        https://arxiv.org/abs/2302.05442
    """

    def __init__(self, config: FluxConfig) -> None:
        super().__init__()
        width = config.width
        self.modulation = Linear(width, 3 * width)
        self.attention = Attention(width, config.heads, qk_norm=True, leaves=False)
        self.enter = Linear(width, config.hidden)
        self.leave = Linear(width + config.hidden, width)

    def forward(self, x: Tensor, told: Tensor, mask: Tensor | None, angles: Tensor) -> Tensor:
        """The tokens after the block, shape of x.

        Args:
            x: Words, then places, shape (B, tokens, width).
            told: What steers, shape (B, width).
            mask: Which tokens are looked at, shape (B, tokens), bool; None for all.
            angles: By which queries and keys are turned, shape (tokens, width / heads / 2).
        """
        shift, scale, gate = self.modulation(told).chunk(3, dim=1)
        asked, hidden = forgetting(lambda y: (self.attention.ask(y), self.enter(y)), modulated_norm, x, shift, scale)
        mixed = self.attention.answer(turned_attention(asked, mask, angles))
        return gated(x, gate, forgetting(self.leave, _beside, mixed, hidden))


def _beside(mixed: Tensor, hidden: Tensor) -> Tensor:
    return torch.cat([mixed, gelu(hidden)], dim=2)


@networks.register("flux")
class Flux(JointNetwork):
    """A transformer of double blocks, as in `mmdit`, and then of single blocks that treat words and places alike.

    The network of FLUX.1 as diffusers' `FluxTransformer2DModel` computes it. Positions turn the queries and keys of places; words
    have none. Beside what `mmdit` takes, a condition may hold "guidance", the scale of a guidance that was distilled into the
    network. Reads samples of shape (C, L), (C, H, W) or (C, T, H, W) of any size that the patch divides. Blocks are the identity
    at the start, and the output is zero.

    References:
        FLUX.1 (Black Forest Labs, 2024), https://github.com/black-forest-labs/flux
        Scaling Rectified Flow Transformers for High-Resolution Image Synthesis (Esser et al., 2024), https://arxiv.org/abs/2403.03206

    Raises:
        IncompatibleParts: The data is not a sequence, image or video, the patch does not divide its size or has another
            number of axes, the output has another size than the input, or heads have no channels for so many axes.
    """

    Config = FluxConfig
    config: FluxConfig

    def __init__(
        self,
        shape: tuple[int, ...],
        out_shape: tuple[int, ...] | None = None,
        num_classes: int = 0,
        config: FluxConfig | None = None,
    ) -> None:
        given = FluxConfig() if config is None else config
        super().__init__(shape, out_shape, num_classes, given, given.guidance)
        self.axes = given.axes_of(len(self.patch))
        if len(self.axes) != len(self.patch) or not all(self.axes):
            told = f"{len(self.patch)} axes and {given.width // given.heads} channels of a head"
            raise IncompatibleParts(f"network.axes: expected channels for each of {told}, got {list(self.axes)}")
        self.double_blocks = nn.ModuleList(
            JointBlock(given, qk_norm=True, last=i == given.double_blocks - 1 and not given.single_blocks)
            for i in range(given.double_blocks)
        )
        self.single_blocks = nn.ModuleList(SingleBlock(given) for _ in range(given.single_blocks))
        self.initialise()

    def checkpointed_blocks(self) -> Sequence[nn.Module]:
        """All blocks; see `Network.checkpointed_blocks`."""
        return [*self.double_blocks, *self.single_blocks]

    def forward(self, x: Tensor, noise_level: Tensor, cond: Condition | None = None) -> Tensor:
        """The raw prediction; see `Network.forward`."""
        places, words, told, mask = self.begin(x, noise_level, cond)
        before = 0 if words is None else words.shape[1]
        angles = rotations(self.grid(x), self.axes, self.config.width // self.config.heads, before, x.device)
        for block in self.double_blocks:
            places, words = block(places, words, told, mask, angles)
        every = places if words is None else torch.cat([words, places], dim=1)
        for block in self.single_blocks:
            every = block(every, told, mask, angles)
        return self.end(every[:, -places.shape[1] :], told, x)
