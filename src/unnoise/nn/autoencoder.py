"""The autoencoder of latent diffusion: data to the moments of its latents, and latents to data."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import BadOption, ShapeError
from ..options import Checked, option
from ..precision import dtype_of
from .blocks import Downsample, SelfAttention, Upsample, group_norm
from .convolution import convolution
from .group_norm import best_layout
from .normed import convolve_normed

QUIET = -6.0
"""The logarithm of the variances of latents, about, before anything is learned."""
EPSILON = 1e-6
"""What is added to the variances of normalisations."""
LOG_VARIANCES = -30.0, 20.0
"""Between what logarithms of variances are held, as in Stable Diffusion."""


@dataclass(frozen=True)
class AutoencoderConfig(Checked):
    """The options of an autoencoder; the defaults are those of Stable Diffusion 1.x.

    Raises:
        BadOption: There is no level.
    """

    width: int = option(128, help="channels at full resolution", low=4)
    multipliers: tuple[int, ...] = option(
        (1, 2, 4, 4), help="channels of each level, in widths; sizes halve between", low=1
    )
    blocks: int = option(2, help="residual blocks of a level of the encoder; the decoder has one more", low=1)
    latent_channels: int = option(4, help="channels of the latents", low=1)
    attention: bool = option(True, help="attention among all places of the latents, in the middle")
    mixes: bool = option(True, help="a linear layer over the channels of the latents, at their side of either half")
    variational: bool = option(True, help="whether a variance of the latents is told beside their mean")
    groups: int = option(32, help="most groups of a normalisation; each has at least four channels", low=1)

    def __post_init__(self) -> None:
        """Checks what no single range can say."""
        super().__post_init__()
        if not self.multipliers:
            raise BadOption("multipliers: must have at least one level, got none")

    @property
    def widths(self) -> list[int]:
        """Channels of each level, the finest first."""
        return [self.width * multiplier for multiplier in self.multipliers]

    @property
    def stride(self) -> int:
        """By how much latents are smaller than data, in each dimension."""
        return 2 ** (len(self.multipliers) - 1)


class PlainResidualBlock(nn.Module):
    """skip(x) + Conv(SiLU(GroupNorm(h))) with h = Conv(SiLU(GroupNorm(x))).

    Args:
        dims: 1, 2 or 3.
        channels: Channels that enter.
        out_channels: Channels that leave.
        groups: The most groups of a normalisation.
    """

    def __init__(self, dims: int, channels: int, out_channels: int, groups: int = 32) -> None:
        super().__init__()
        self.norm_in = group_norm(channels, groups, EPSILON, silu=True)
        self.conv_in = convolution(dims, channels, out_channels)
        self.norm_out = group_norm(out_channels, groups, EPSILON, silu=True)
        self.conv_out = convolution(dims, out_channels, out_channels)
        same = channels == out_channels
        self.skip = nn.Identity() if same else convolution(dims, channels, out_channels, size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, out_channels, *size) for x of shape (B, channels, *size)."""
        h = convolve_normed(self.norm_in, self.conv_in, x)  # (B, out_channels, *size)
        return self.skip(x) + convolve_normed(self.norm_out, self.conv_out, h)


def _middle(dims: int, config: AutoencoderConfig) -> nn.Sequential:
    """Residual blocks around attention, at the resolution of the latents."""
    channels, groups = config.widths[-1], config.groups
    among = [SelfAttention(channels, channels, groups, EPSILON)] if config.attention else []
    first, last = (PlainResidualBlock(dims, channels, channels, groups) for _ in range(2))
    return nn.Sequential(first, *among, last)


def _level(dims: int, entering: int, channels: int, blocks: int, groups: int) -> nn.Sequential:
    each = [entering] + [channels] * (blocks - 1)
    return nn.Sequential(*(PlainResidualBlock(dims, before, channels, groups) for before in each))


def _check(x: Tensor, dims: int, channels: int, least: int) -> None:
    if x.ndim != dims + 2 or x.shape[1] != channels or min(x.shape[2:]) < least:
        places = ", ".join(["size"] * dims)
        given = f"expected x of shape (B, {channels}, {places}) with sizes from {least}, got {tuple(x.shape)}"
        raise ShapeError(given)


class Encoder(nn.Module):
    """Data to the mean and the logarithm of the variance of its latents, as diffusers' `AutoencoderKL` computes them.

    Residual blocks at falling resolution, then attention. Works on sequences, images and videos of any size; sizes are halved
    with rounding down.

    References:
        High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022), Section 3.1, https://arxiv.org/abs/2112.10752

    Args:
        dims: 1, 2 or 3.
        channels: Channels of the data.
        config: The options; None for the defaults.
    """

    def __init__(self, dims: int = 2, channels: int = 3, config: AutoencoderConfig | None = None) -> None:
        super().__init__()
        self.dims, self.channels = dims, channels
        self.config = config = config or AutoencoderConfig()
        widths, moments = config.widths, (2 if config.variational else 1) * config.latent_channels
        self.enter = convolution(dims, channels, widths[0])
        pairs = zip([widths[0], *widths], widths, strict=False)
        self.down = nn.ModuleList(_level(dims, before, out, config.blocks, config.groups) for before, out in pairs)
        self.downsamples = nn.ModuleList(Downsample(dims, out, behind=True) for out in widths[:-1])
        self.middle = _middle(dims, config)
        self.norm = group_norm(widths[-1], config.groups, EPSILON, silu=True)
        self.leave = convolution(dims, widths[-1], moments)
        self.mix = convolution(dims, moments, moments, size=1) if config.mixes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """The moments.

        Args:
            x: Shape (B, channels, *size).

        Returns:
            Shape (B, 2 latent_channels, *size / stride): means, then logarithms of variances; means alone where it tells no others.

        Raises:
            ShapeError: x has another shape, or is smaller than the stride.
        """
        _check(x, self.dims, self.channels, self.config.stride)
        h = self.enter(best_layout(x))
        for level, blocks in enumerate(self.down):
            h = blocks(self.downsamples[level - 1](h) if level else h)
        out: Tensor = self.mix(self.leave(self.norm(self.middle(h))))
        return out.contiguous()

    def checkpointed_blocks(self) -> list[nn.Module]:
        """Every block; see `Network.checkpointed_blocks`."""
        return [*self.middle, *(block for blocks in self.down for block in blocks)]  # type: ignore[attr-defined]


class Decoder(nn.Module):
    """Latents to data, as diffusers' `AutoencoderKL` computes it: attention, then residual blocks at rising resolution.

    Works on sequences, images and videos of any size.

    References:
        High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022), Section 3.1, https://arxiv.org/abs/2112.10752

    Args:
        dims: 1, 2 or 3.
        channels: Channels of the data.
        config: The options; None for the defaults.
    """

    def __init__(self, dims: int = 2, channels: int = 3, config: AutoencoderConfig | None = None) -> None:
        super().__init__()
        self.dims, self.channels = dims, channels
        self.config = config = config or AutoencoderConfig()
        widths, latents = config.widths[::-1], config.latent_channels
        self.mix = convolution(dims, latents, latents, size=1) if config.mixes else nn.Identity()
        self.enter = convolution(dims, latents, widths[0])
        self.middle = _middle(dims, config)
        pairs = zip([widths[0], *widths], widths, strict=False)
        self.up = nn.ModuleList(_level(dims, before, out, config.blocks + 1, config.groups) for before, out in pairs)
        self.upsamples = nn.ModuleList(Upsample(dims, out, out) for out in widths[:-1])
        self.norm = group_norm(widths[-1], config.groups, EPSILON, silu=True)
        self.leave = convolution(dims, widths[-1], channels)

    def forward(self, z: Tensor) -> Tensor:
        """The data.

        Args:
            z: Shape (B, latent_channels, *size).

        Returns:
            Shape (B, channels, *size * stride).

        Raises:
            ShapeError: z has another shape.
        """
        _check(z, self.dims, self.config.latent_channels, 1)
        h = self.middle(self.enter(best_layout(self.mix(z))))
        for level, blocks in enumerate(self.up):
            if level:
                h = self.upsamples[level - 1](h, tuple(2 * each for each in h.shape[2:]))
            h = blocks(h)
        out: Tensor = self.leave(self.norm(h))
        return out.contiguous()

    def checkpointed_blocks(self) -> list[nn.Module]:
        """Every block; see `Network.checkpointed_blocks`."""
        return [*self.middle, *(block for blocks in self.up for block in blocks)]  # type: ignore[attr-defined]


class Autoencoder(nn.Module):
    """Both halves: data to a normal density of its latents, and back.

    Whatever its weights are in, what it takes and gives is float32 (float64 stays float64).

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2014), Sections 2.4 and 3, https://arxiv.org/abs/1312.6114

    Args:
        dims: 1, 2 or 3.
        channels: Channels of the data.
        config: The options; None for the defaults.
    """

    takes_data_alone = True
    """It knows no noise level, as `Network` does."""

    def __init__(self, dims: int = 2, channels: int = 3, config: AutoencoderConfig | None = None) -> None:
        super().__init__()
        self.dims, self.channels = dims, channels
        self.config = config or AutoencoderConfig()
        self.encoder = Encoder(dims, channels, self.config)
        self.decoder = Decoder(dims, channels, self.config)
        self._quieten()

    @torch.no_grad()
    def _quieten(self) -> None:
        """Lets variances begin small: of 1, the noise of latents that are drawn drowns their means for hundreds of steps."""
        last = self.encoder.mix if self.config.mixes else self.encoder.leave
        if self.config.variational and isinstance(last.bias, Tensor):
            last.bias[self.config.latent_channels :] = QUIET

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Mean and standard deviation of the latents, shape (B, latent_channels, *size / stride) each.

        Args:
            x: Shape (B, channels, *size), about in [-1, 1].

        Returns:
            The second is None where no variance is told.
        """
        told = self.encoder(x.to(dtype_of(self))).to(_wide(x))
        if not self.config.variational:
            return told, None
        mean, log_variance = told.chunk(2, dim=1)
        return mean, torch.exp(log_variance.clamp(*LOG_VARIANCES) / 2)

    def decode(self, z: Tensor) -> Tensor:
        """The data, shape (B, channels, *size), of latents of shape (B, latent_channels, *size / stride)."""
        return self.decoder(z.to(dtype_of(self))).to(_wide(z))

    def forward(self, x: Tensor) -> Tensor:
        """The data by way of the means of its latents, shape of x."""
        return self.decode(self.moments(x)[0])

    def checkpointed_blocks(self) -> list[nn.Module]:
        """Every block; see `Network.checkpointed_blocks`."""
        return [*self.encoder.checkpointed_blocks(), *self.decoder.checkpointed_blocks()]


def _wide(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32
