"""The U-Net, for sequences, images and videos."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import BadOption, IncompatibleParts
from ..options import Checked, option
from .base import Condition, Network, networks
from .blocks import Downsample, ResidualBlock, SelfAttention, Upsample, group_norm
from .convolution import convolution
from .embedding import ConditionEmbedding
from .group_norm import best_layout


@dataclass(frozen=True)
class UNetConfig(Checked):
    """The options of the U-Net.

    Raises:
        BadOption: There is no level, or attention is asked for at a level that does not exist.
    """

    width: int = option(64, help="channels at full resolution", low=4)
    multipliers: tuple[int, ...] = option(
        (1, 2, 2), help="channels of each level, in widths; sizes halve between", low=1
    )
    blocks: int = option(2, help="residual blocks of a level, on the way down and again on the way up", low=1)
    attention: tuple[int, ...] = option((-1,), help="levels with attention: 0 finest, -1 coarsest; or none")
    head_channels: int = option(32, help="channels of an attention head", low=1)
    embedding_factor: int = option(4, help="dimension of the condition embedding, in widths", low=1)
    dropout: float = option(0.0, help="share of values dropped inside residual blocks", low=0.0, high=1.0)
    groups: int = option(32, help="most groups of a normalisation; each has at least four channels", low=1)

    def __post_init__(self) -> None:
        """Checks what no single range can say."""
        super().__post_init__()
        levels = len(self.multipliers)
        if not levels:
            raise BadOption("multipliers: must have at least one level, got none")
        wrong = [level for level in self.attention if not -levels <= level < levels]
        if wrong:
            raise BadOption(f"attention: must be levels from {-levels} to {levels - 1}, got {wrong[0]}")

    def attends(self, level: int) -> bool:
        """Whether attention stands at a level, 0 the finest."""
        return level in self.attention or level - len(self.multipliers) in self.attention


class Stage(nn.Module):
    """A residual block, then attention where it is asked for."""

    def __init__(self, dims: int, channels: int, out_channels: int, attends: bool, config: UNetConfig) -> None:
        super().__init__()
        embedding = config.width * config.embedding_factor
        self.residual = ResidualBlock(dims, channels, out_channels, embedding, config.groups, config.dropout)
        self.attention = SelfAttention(out_channels, config.head_channels, config.groups) if attends else None

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """Shape (B, out_channels, *size) for x of shape (B, channels, *size) and a vector of shape (B, embedding)."""
        h: Tensor = self.residual(x, told)
        return h if self.attention is None else self.attention(h)


@networks.register("unet")
class UNet(Network):
    """Residual blocks at falling, then at rising resolution, with skip connections between like resolutions.

    Leaner than the U-Net of DDPM: a block on the way up is joined with its one partner on the way down, and channels
    are reduced while going up rather than after it. That halves the arithmetic at full resolution.

    Reads samples of shape (C, L), (C, H, W) or (C, T, H, W), of any size down to 2 ** (levels - 1) in each dimension:
    sizes are halved with rounding up, and brought back to the size of the skip connection. Attention stands in the
    middle too, unless there is none at any level. Inside, channels lie innermost wherever that is quicker; the
    answer has the usual order in memory. The last convolution is zero at the start.

    References:
        Denoising Diffusion Probabilistic Models (Ho et al., 2020), Appendix B, https://arxiv.org/abs/2006.11239
        Diffusion Models Beat GANs on Image Synthesis (Dhariwal and Nichol, 2021), Section 3, https://arxiv.org/abs/2105.05233

    Raises:
        IncompatibleParts: The data is not a sequence, image or video, is too small for so many levels, or the output
            has another size than the input.
    """

    Config = UNetConfig
    any_size = True
    config: UNetConfig

    def __init__(
        self,
        shape: tuple[int, ...],
        out_shape: tuple[int, ...] | None = None,
        num_classes: int = 0,
        config: UNetConfig | None = None,
    ) -> None:
        super().__init__(shape, out_shape, num_classes, config)
        check_levels(self.shape, self.out_shape, self.config)
        dims, width = len(self.shape) - 1, self.config.width
        widths = [width * multiplier for multiplier in self.config.multipliers]
        self.embedding = ConditionEmbedding(width + width % 2, width * self.config.embedding_factor, num_classes)
        self.enter = convolution(dims, self.shape[0], width)
        self.down = nn.ModuleList()
        self.downsamples = nn.ModuleList(Downsample(dims, channels) for channels in widths[:-1])
        self.up = nn.ModuleList()
        pairs = zip(widths[:0:-1], widths[-2::-1], strict=True)
        self.upsamples = nn.ModuleList(Upsample(dims, coarse, fine) for coarse, fine in pairs)
        blocks = self.config.blocks
        for level, (before, out) in enumerate(zip([width, *widths], widths, strict=False)):
            self.down.append(self._level(dims, level, [before] + [out] * (blocks - 1), out))
        attends = bool(self.config.attention)
        self.middle = nn.ModuleList(Stage(dims, widths[-1], widths[-1], here, self.config) for here in (attends, False))
        for level, out in reversed(list(enumerate(widths))):
            self.up.append(self._level(dims, level, [2 * out] * blocks, out))
        self.norm = group_norm(widths[0], self.config.groups, silu=True)
        self.leave = convolution(dims, widths[0], self.out_shape[0], zero=True)

    def _level(self, dims: int, level: int, entering: list[int], channels: int) -> nn.ModuleList:
        attends = self.config.attends(level)
        return nn.ModuleList(Stage(dims, each, channels, attends, self.config) for each in entering)

    def forward(self, x: Tensor, noise_level: Tensor, cond: Condition | None = None) -> Tensor:
        """The raw prediction, shape (B, *out_shape), for x of shape (B, *shape) and noise_level of shape (B,).

        Other sizes than that of `shape` may enter; the output then has that size.

        Raises:
            BadOption: The condition holds something that this network was not made for.
            ShapeError: A tensor has another shape.
        """
        self.check(x, noise_level)
        told = self.embedding(noise_level, self.labels(cond, x))  # (B, embedding)
        h = self.enter(best_layout(x))  # (B, width, *size)
        skips = []
        for level, stages in enumerate(self.down):
            if level:
                h = self.downsamples[level - 1](h)  # (B, channels, *halved)
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


def check_levels(shape: tuple[int, ...], out_shape: tuple[int, ...], config: UNetConfig) -> None:
    """Checks that data can be halved as often as a U-Net has levels.

    Raises:
        IncompatibleParts: It is not a sequence, image or video, or too small, or the output has another size than the input.
    """
    if not 2 <= len(shape) <= 4:
        known = "(C, L), (C, H, W) or (C, T, H, W)"
        raise IncompatibleParts(
            f"a U-Net needs samples of shape {known}, got {shape}: take the network mlp, network.name=mlp"
        )
    if out_shape[1:] != shape[1:]:
        wanted = ", ".join(map(str, shape[1:]))
        raise IncompatibleParts(f"a U-Net keeps sizes: expected an output of shape (C, {wanted}), got {out_shape}")
    stride = 2 ** (len(config.multipliers) - 1)
    if min(shape[1:]) < stride:
        size = " x ".join(map(str, shape[1:]))
        given = f"data of size {size} is smaller than {stride}, the stride of {len(config.multipliers)} levels"
        raise IncompatibleParts(f"{given}: give fewer network.multipliers or larger data")
