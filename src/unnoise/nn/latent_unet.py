"""The U-Net of latent diffusion, which Stable Diffusion 1.x is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..options import option
from .attention import keys_and_values, share_columns
from .base import Condition, Network, networks
from .blocks import AddedResidualBlock, Downsample, ResidualBlock, Upsample, group_norm
from .conditions import Context
from .convolution import convolution
from .embedding import ConditionEmbedding
from .group_norm import best_layout
from .spatial_transformer import SpatialTransformer
from .unet import UNetConfig, check_levels

EPSILON = 1e-5
"""What is added to the variances of normalisations outside of transformers."""


@dataclass(frozen=True)
class LatentUNetConfig(UNetConfig):
    """The options of the U-Net of latent diffusion; `STABLE_DIFFUSION_1` holds those of Stable Diffusion 1.x."""

    multipliers: tuple[int, ...] = option(
        (1, 2, 4), help="channels of each level, in widths; sizes halve between", low=1
    )
    blocks: int = option(2, help="residual blocks of a level on the way down; one more on the way up", low=1)
    attention: tuple[int, ...] = option(
        (1, 2), help="levels with transformers: 0 finest, -1 coarsest; or none, then the middle has none either"
    )
    heads: int = option(8, help="attention heads at every level, unless head_channels says otherwise", low=1)
    head_channels: int = option(0, help="channels of an attention head; 0: as many heads at every level", low=0)
    depth: int = option(1, help="blocks of a transformer", low=1)
    context: int = option(0, help="dimension of the tokens that are asked for; 0: no tokens are", low=0)
    context_tokens: int = option(77, help="tokens of the condition that asks for nothing", low=1)
    pooled: int = option(0, help="dimension of a vector that is asked for beside them; 0: none is", low=0)
    places: bool = option(
        False, help="whether transformers are told where each place lies, for words that ask for a side"
    )
    scale_shift: bool = option(
        False,
        help="whether noise level, label and pooled vector scale and shift channels, instead of being added to them",
    )

    def heads_of(self, channels: int) -> int:
        """Heads of attention among so many channels."""
        return max(1, channels // self.head_channels) if self.head_channels else self.heads


STABLE_DIFFUSION_1 = LatentUNetConfig(width=320, multipliers=(1, 2, 4, 4), attention=(0, 1, 2), context=768)
"""859.5 million parameters, for latents of 4 channels; heads, blocks and the rest are the defaults."""


class Stage(nn.Module):
    """A residual block, then a transformer where it is asked for."""

    def __init__(self, dims: int, channels: int, out_channels: int, attends: bool, config: LatentUNetConfig) -> None:
        super().__init__()
        embedding, groups, dropout = config.width * config.embedding_factor, config.groups, config.dropout
        self.residual = (
            ResidualBlock(dims, channels, out_channels, embedding, groups, dropout)
            if config.scale_shift
            else AddedResidualBlock(dims, channels, out_channels, embedding, groups, dropout, EPSILON)
        )
        heads = config.heads_of(out_channels)
        self.transformer = (
            SpatialTransformer(out_channels, heads, config.context, config.depth, groups, dropout, config.places)
            if attends
            else None
        )

    def forward(self, x: Tensor, told: Tensor, context: Context | None) -> Tensor:
        """The data after the stage.

        Args:
            x: Shape (B, channels, *size).
            told: Shape (B, embedding).
            context: What is looked up; None where the network has none.

        Returns:
            Shape (B, out_channels, *size).
        """
        h: Tensor = self.residual(x, told)
        return h if self.transformer is None else self.transformer(h, context)


@networks.register("latent_unet")
class LatentUNet(Network):
    """A U-Net with transformers at chosen levels, conditioned on labels and on tokens such as the states of a text encoder.

    The network of latent diffusion as diffusers' `UNet2DConditionModel` computes it. Tokens of shape (B, tokens, `context`) go by
    the name "context" in a condition, and those of them that are read, where not all are, by "context_mask"; what asks for
    nothing are the tokens in `null_context`, zeros until others are put there (Stable Diffusion's are the states of an empty
    text), which are saved with the weights. With `pooled`, a vector of the whole text is told to every block beside the noise
    level, as in Stable Diffusion XL.

    Reads samples of shape (C, L), (C, H, W) or (C, T, H, W), of any size down to 2 ** (levels - 1) in each dimension: sizes are
    halved with rounding up, and brought back to the size of the skip connection. Inside, channels lie innermost wherever that is
    quicker. The last layers of residual blocks, of transformers and of the network are zero at the start.

    References:
        High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022), Section 3.3, https://arxiv.org/abs/2112.10752

    Raises:
        IncompatibleParts: The data is not a sequence, image or video, is too small for so many levels, or the output
            has another size than the input.
    """

    Config = LatentUNetConfig
    any_size = True
    config: LatentUNetConfig

    def __init__(
        self,
        shape: tuple[int, ...],
        out_shape: tuple[int, ...] | None = None,
        num_classes: int = 0,
        config: LatentUNetConfig | None = None,
    ) -> None:
        super().__init__(shape, out_shape, num_classes, config)
        check_levels(self.shape, self.out_shape, self.config)
        if self.config.context:
            self.take_context(self.config.context_tokens, self.config.context)
        dims, width = len(self.shape) - 1, self.config.width
        widths = [width * multiplier for multiplier in self.config.multipliers]
        pooled = self.config.pooled
        if pooled:
            self.take_pooled(pooled)
        self.embedding = ConditionEmbedding(
            width + width % 2, width * self.config.embedding_factor, num_classes, pooled=pooled
        )
        self.enter = convolution(dims, self.shape[0], width)
        self.down = nn.ModuleList()
        self.downsamples = nn.ModuleList(Downsample(dims, channels) for channels in widths[:-1])
        self.up = nn.ModuleList()
        self.upsamples = nn.ModuleList(Upsample(dims, channels, channels) for channels in widths[:0:-1])
        skips, now = [width], width
        for level, out in enumerate(widths):
            entering = [now] + [out] * (self.config.blocks - 1)
            self.down.append(self._level(dims, level, entering, out))
            skips += [out] * (self.config.blocks + (level < len(widths) - 1))
            now = out
        attends = bool(self.config.attention)
        self.middle = nn.ModuleList(Stage(dims, now, now, here, self.config) for here in (attends, False))
        for level, out in reversed(list(enumerate(widths))):
            before = [now] + [out] * self.config.blocks
            self.up.append(self._level(dims, level, [each + skips.pop() for each in before], out))
            now = out
        self.norm = group_norm(now, self.config.groups, EPSILON, silu=True)
        self.leave = convolution(dims, now, self.out_shape[0], zero=True)
        share_columns(self)

    def _level(self, dims: int, level: int, entering: list[int], channels: int) -> nn.ModuleList:
        attends = self.config.attends(level)
        return nn.ModuleList(Stage(dims, each, channels, attends, self.config) for each in entering)

    def forward(self, x: Tensor, noise_level: Tensor, cond: Condition | None = None) -> Tensor:
        """The raw prediction; see `Network.forward`. Other sizes than that of `shape` may enter.

        Raises:
            BadOption: The condition holds something that this network was not made for.
            ShapeError: A tensor has another shape.
        """
        self.check(x, noise_level)
        told = self.embedding(noise_level, self.labels(cond, x), self.pooled(cond, x))  # (B, embedding)
        context = self.context(cond, x)
        h = self.enter(best_layout(x))  # (B, width, *size)
        skips = [h]
        for level, stages in enumerate(self.down):
            if level:
                h = self.downsamples[level - 1](h)  # (B, channels, *halved)
                skips.append(h)
            for stage in stages:  # type: ignore[attr-defined]
                h = stage(h, told, context)
                skips.append(h)
        for stage in self.middle:
            h = stage(h, told, context)
        for level, stages in enumerate(self.up):
            if level:
                h = self.upsamples[level - 1](h, skips[-1].shape[2:])  # (B, channels, *doubled)
            for stage in stages:  # type: ignore[attr-defined]
                h = stage(torch.cat([h, skips.pop()], dim=1), told, context)
        out: Tensor = self.leave(self.norm(h))  # (B, *out_shape)
        return out.contiguous()

    def digest(self, tokens: Tensor) -> Tensor | None:
        """The keys and values of every transformer; see `Network.digest`."""
        return keys_and_values(self, tokens) if self.config.attention else None

    def checkpointed_blocks(self) -> list[nn.Module]:
        """Every stage; see `Network.checkpointed_blocks`."""
        return [stage for stages in (*self.down, self.middle, *self.up) for stage in stages]
