"""Tells real data from made data, a patch at a time."""

from __future__ import annotations

from torch import Tensor, nn

from .blocks import group_norm
from .convolution import convolution


class PatchDiscriminator(nn.Module):
    """Strided convolutions that say of every patch of a sample how real it looks, and see no more of it but its statistics.

    Group normalisation stands where the paper has that of batches, so that a sample is judged by itself; kernels are 3 wide.

    References:
        Image-to-Image Translation with Conditional Adversarial Networks (Isola et al., 2017), Section 3.2.2,
        https://arxiv.org/abs/1611.07004

    Args:
        dims: 1, 2 or 3.
        channels: Channels of the data.
        width: Channels of the first layer; the others have up to eight times as many.
        layers: Layers that halve sizes; a patch is 11, 23 or 47 values wide with 1, 2 or 3 of them.
    """

    def __init__(self, dims: int = 2, channels: int = 3, width: int = 64, layers: int = 3) -> None:
        super().__init__()
        self.layers = nn.Sequential(convolution(dims, channels, width, stride=2), nn.LeakyReLU(0.2))
        before = width
        for i in range(1, layers + 1):
            after, stride = width * min(2**i, 8), 2 if i < layers else 1
            self.layers += nn.Sequential(
                convolution(dims, before, after, stride=stride), group_norm(after, 32), nn.LeakyReLU(0.2)
            )
            before = after
        self.layers.append(convolution(dims, before, 1))

    def forward(self, x: Tensor) -> Tensor:
        """How real each patch looks, shape (B, 1, *patches), for x of shape (B, channels, *size), about in [-1, 1]."""
        out: Tensor = self.layers(x)
        return out
