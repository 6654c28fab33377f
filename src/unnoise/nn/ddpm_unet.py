"""The U-Net of DDPM, in the form that most published checkpoints have."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..options import option
from .base import Condition, Network, networks
from .blocks import AddedResidualBlock, Downsample, SelfAttention, Upsample, group_norm
from .convolution import convolution
from .embedding import ConditionEmbedding
from .group_norm import best_layout
from .unet import UNetConfig, check_levels

EPSILON = 1e-6
"""What is added to the variances of normalisations."""


@dataclass(frozen=True)
class DDPMUNetConfig(UNetConfig):
    """The options of DDPM's U-Net; the defaults are those for CIFAR-10."""

    width: int = option(128, help="channels at full resolution", low=4)
    multipliers: tuple[int, ...] = option(
        (1, 2, 2, 2), help="channels of each level, in widths; sizes halve between", low=1
    )
    blocks: int = option(2, help="residual blocks of a level on the way down; one more on the way up", low=1)
    attention: tuple[int, ...] = option(
        (1,), help="levels with attention: 0 finest, -1 coarsest; or none. The middle has it in any case"
    )
    head_channels: int = option(0, help="channels of an attention head; 0: one head of all channels", low=0)


class Stage(nn.Module):
    """A residual block, then attention where it is asked for."""

    def __init__(self, dims: int, channels: int, out_channels: int, attends: bool, config: DDPMUNetConfig) -> None:
        super().__init__()
        embedding, groups = config.width * config.embedding_factor, config.groups
        self.residual = AddedResidualBlock(dims, channels, out_channels, embedding, groups, config.dropout, EPSILON)
        head = config.head_channels or out_channels
        self.attention = SelfAttention(out_channels, head, groups, EPSILON) if attends else None

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """Shape (B, out_channels, *size) for x of shape (B, channels, *size) and a vector of shape (B, embedding)."""
        h: Tensor = self.residual(x, told)
        return h if self.attention is None else self.attention(h)


@networks.register("ddpm_unet")
class DDPMUNet(Network):
    """Residual blocks at falling, then at rising resolution, with skip connections from every step of the way down.

    The network of DDPM as diffusers' `UNet2DModel` computes it, with the vector of the noise level added inside blocks. With the
    default options it has 35.7 million parameters. The network `unet` reaches the same with about half the arithmetic.

    Reads samples of shape (C, L), (C, H, W) or (C, T, H, W), of any size down to 2 ** (levels - 1) in each dimension: sizes are
    halved with rounding down, and brought back to the size of the skip connection. Inside, channels lie innermost wherever that is
    quicker. The last convolution of a block, and of the network, is zero at the start.

    References:
        Denoising Diffusion Probabilistic Models (Ho et al., 2020), Appendix B, https://arxiv.org/abs/2006.11239

    Raises:
        IncompatibleParts: The data is not a sequence, image or video, is too small for so many levels, or the output
            has another size than the input.
    """

    Config = DDPMUNetConfig
    any_size = True
    config: DDPMUNetConfig

    def __init__(
        self,
        shape: tuple[int, ...],
        out_shape: tuple[int, ...] | None = None,
        num_classes: int = 0,
        config: DDPMUNetConfig | None = None,
    ) -> None:
        super().__init__(shape, out_shape, num_classes, config)
        check_levels(self.shape, self.out_shape, self.config)
        dims, width = len(self.shape) - 1, self.config.width
        widths = [width * multiplier for multiplier in self.config.multipliers]
        embedding = width * self.config.embedding_factor
        self.embedding = ConditionEmbedding(width + width % 2, embedding, num_classes, to_the_end=True)
        self.enter = convolution(dims, self.shape[0], width)
        self.down = nn.ModuleList()
        self.downsamples = nn.ModuleList(Downsample(dims, channels, behind=True) for channels in widths[:-1])
        self.up = nn.ModuleList()
        self.upsamples = nn.ModuleList(Upsample(dims, channels, channels) for channels in widths[:0:-1])
        skips, now = [width], width
        for level, out in enumerate(widths):
            entering = [now] + [out] * (self.config.blocks - 1)
            self.down.append(self._level(dims, level, entering, out))
            skips += [out] * (self.config.blocks + (level < len(widths) - 1))
            now = out
        self.middle = nn.ModuleList(Stage(dims, now, now, attends, self.config) for attends in (True, False))
        for level, out in reversed(list(enumerate(widths))):
            before = [now] + [out] * self.config.blocks
            self.up.append(self._level(dims, level, [each + skips.pop() for each in before], out))
            now = out
        self.norm = group_norm(now, self.config.groups, EPSILON, silu=True)
        self.leave = convolution(dims, now, self.out_shape[0], zero=True)

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
        told = self.embedding(noise_level, self.labels(cond, x))  # (B, embedding)
        h = self.enter(best_layout(x))  # (B, width, *size)
        skips = [h]
        for level, stages in enumerate(self.down):
            if level:
                h = self.downsamples[level - 1](h)  # (B, channels, *halved)
                skips.append(h)
            for stage in stages:  # type: ignore[attr-defined]
                h = stage(h, told)
                skips.append(h)
        for stage in self.middle:
            h = stage(h, told)
        for level, stages in enumerate(self.up):
            if level:
                h = self.upsamples[level - 1](h, skips[-1].shape[2:])  # (B, channels, *doubled)
            for stage in stages:  # type: ignore[attr-defined]
                h = stage(torch.cat([h, skips.pop()], dim=1), told)
        out: Tensor = self.leave(self.norm(h))  # (B, *out_shape)
        return out.contiguous()

    def checkpointed_blocks(self) -> list[nn.Module]:
        """Every stage; see `Network.checkpointed_blocks`."""
        return [stage for stages in (*self.down, self.middle, *self.up) for stage in stages]
