"""The blocks of the U-Net, for data of one, two or three dimensions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .attention import attend
from .convolution import convolution
from .dropout import Dropout
from .forgetting import forgetting
from .group_norm import GroupNorm
from .linear import Linear
from .normed import convolve_normed
from .packing import Packable


def divisor(number: int, limit: int) -> int:
    """The largest divisor of a number that is not above a limit; 1 where there is none."""
    return next((n for n in range(min(number, limit), 0, -1) if number % n == 0), 1)


def group_norm(channels: int, groups: int = 32, eps: float = 1e-5, silu: bool = False) -> GroupNorm:
    """Group normalisation with as many groups as divide the channels, of at least four channels each.

    A group of one channel would lose the mean of its feature map, and everything where one place is left.

    Args:
        channels: Channels of what it normalises, any number.
        groups: The most groups there may be.
        eps: What is added to a variance before its root is taken.
        silu: Whether SiLU follows.
    """
    return GroupNorm(divisor(channels, min(groups, channels // 4)), channels, eps, silu)


class ResidualBlock(nn.Module):
    """Two convolutions around a skip connection, steered by a vector after the second normalisation (AdaGN).

    skip(x) + Conv(SiLU(GroupNorm(h) * (1 + scale) + shift)) with h = Conv(SiLU(GroupNorm(x))). The second convolution
    is zero at the start.

    References:
        Diffusion Models Beat GANs on Image Synthesis (Dhariwal and Nichol, 2021), Equation 3, https://arxiv.org/abs/2105.05233

    Args:
        dims: 1, 2 or 3.
        channels: Channels that enter.
        out_channels: Channels that leave.
        embedding: The dimension of the vector.
        groups: The most groups of a normalisation.
        dropout: The share of values dropped before the second convolution, in [0, 1].
    """

    def __init__(
        self, dims: int, channels: int, out_channels: int, embedding: int, groups: int = 32, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.norm_in = group_norm(channels, groups, silu=True)
        self.conv_in = convolution(dims, channels, out_channels)
        self.modulation = nn.Linear(embedding, 2 * out_channels)
        self.norm_out = group_norm(out_channels, groups, silu=True)
        self.dropout = Dropout(dropout)
        self.conv_out = convolution(dims, out_channels, out_channels, zero=True)
        same = channels == out_channels
        self.skip = nn.Identity() if same else convolution(dims, channels, out_channels, size=1)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """Shape (B, out_channels, *size) for x of shape (B, channels, *size) and a vector of shape (B, embedding)."""
        h = convolve_normed(self.norm_in, self.conv_in, x)  # (B, out_channels, *size)
        scale, shift = self.modulation(told).chunk(2, dim=1)  # (B, out_channels) each
        return self.skip(x) + convolve_normed(
            self.norm_out, self.conv_out, h, scale=scale, shift=shift, dropout=self.dropout
        )


class AddedResidualBlock(nn.Module):
    """Two convolutions around a skip connection, with a vector added between them, as in DDPM.

    skip(x) + Conv(SiLU(GroupNorm(h + Linear(told)))) with h = Conv(SiLU(GroupNorm(x))). The second convolution is zero
    at the start.

    References:
        Denoising Diffusion Probabilistic Models (Ho et al., 2020), Appendix B, https://arxiv.org/abs/2006.11239

    Args:
        dims: 1, 2 or 3.
        channels: Channels that enter.
        out_channels: Channels that leave.
        embedding: The dimension of the vector.
        groups: The most groups of a normalisation.
        dropout: The share of values dropped before the second convolution, in [0, 1].
        eps: What is added to the variances of normalisations.
    """

    def __init__(
        self,
        dims: int,
        channels: int,
        out_channels: int,
        embedding: int,
        groups: int = 32,
        dropout: float = 0.0,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.norm_in = group_norm(channels, groups, eps, silu=True)
        self.conv_in = convolution(dims, channels, out_channels)
        self.project = nn.Linear(embedding, out_channels)
        self.norm_out = group_norm(out_channels, groups, eps, silu=True)
        self.dropout = Dropout(dropout)
        self.conv_out = convolution(dims, out_channels, out_channels, zero=True)
        same = channels == out_channels
        self.skip = nn.Identity() if same else convolution(dims, channels, out_channels, size=1)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """Shape (B, out_channels, *size) for x of shape (B, channels, *size) and a vector of shape (B, embedding)."""
        h = convolve_normed(self.norm_in, self.conv_in, x)  # (B, out_channels, *size)
        return self.skip(x) + convolve_normed(
            self.norm_out, self.conv_out, h, added=self.project(told), dropout=self.dropout
        )


class SelfAttention(nn.Module):
    """Every place looks at every other: x + Linear(attention(Linear(GroupNorm(x)))), the identity at the start.

    Places are laid out as tokens with the channels innermost, which is a mere view of data in channels-last order. The
    softmax is taken in float32, whatever the precision of the network.

    References:
        Attention Is All You Need (Vaswani et al., 2017), Equation 1, https://arxiv.org/abs/1706.03762

    Args:
        channels: Channels that enter and leave.
        head_channels: Channels of a head; the nearest number above it that divides the channels is taken.
        groups: The most groups of the normalisation.
        eps: What is added to the variance of the normalisation.
    """

    def __init__(self, channels: int, head_channels: int = 32, groups: int = 32, eps: float = 1e-5) -> None:
        super().__init__()
        self.heads = divisor(channels, channels // head_channels)
        self.norm = group_norm(channels, groups, eps)
        self.project_in = Linear(channels, 3 * channels)
        self.project_out = Linear(channels, channels)
        nn.init.zeros_(self.project_out.weight)
        nn.init.zeros_(self.project_out.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, channels, *size), as x."""
        together: Tensor = forgetting(self.project_in, self._tokens, x)  # (B, places, 3 channels)
        triples = together.unflatten(2, (3, self.heads, -1))  # (B, places, 3, heads, head channels)
        mixed = attend(*triples.unbind(2))  # (B, places, heads, head channels)
        out: Tensor = self.project_out(mixed.flatten(2))  # (B, places, channels)
        return x + out.transpose(1, 2).reshape(x.shape)

    def _tokens(self, x: Tensor) -> Tensor:
        return self.norm(x).flatten(2).transpose(1, 2)  # (B, places, channels)


class Downsample(nn.Module):
    """A convolution of stride 2: a size n becomes n / 2, rounded up, or down where it is padded behind only, as in DDPM.

    Args:
        dims: 1, 2 or 3.
        channels: Channels that enter and leave.
        behind: Whether a row of zeros is added behind the data alone, instead of one at each side.
    """

    def __init__(self, dims: int, channels: int, behind: bool = False) -> None:
        super().__init__()
        self.behind = behind
        self.conv = convolution(dims, channels, channels, stride=2, padded=not behind)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, channels, *halved) for x of shape (B, channels, *size)."""
        if self.behind:
            x = nn.functional.pad(x, (0, 1) * (x.ndim - 2))
        out: Tensor = self.conv(x)
        return out


class Upsample(Packable, nn.Module):
    """Nearest neighbours, then a convolution, to any size that is asked for."""

    def __init__(self, dims: int, channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = convolution(dims, channels, out_channels)

    def forward(self, x: Tensor, size: torch.Size | tuple[int, ...]) -> Tensor:
        """Shape (B, out_channels, *size) for x of shape (B, channels, *any)."""
        doubles = tuple(size) == tuple(2 * each for each in x.shape[2:])
        if self.packed is not None and doubles and isinstance(self.conv, nn.Conv2d) and self.takes_blocks(x):
            return self.packed.convolve_doubled(x, self.conv)
        out: Tensor = self.conv(nn.functional.interpolate(x, size=size, mode="nearest"))
        return out
