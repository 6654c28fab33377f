"""Convolutions over one, two and three dimensions that keep sizes, or divide them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .kernels import winograd
from .linear import affine_rows
from .packing import Packable


class _Exact:
    """Mends a gradient: oneDNN's kernels for bfloat16 take what lies in memory for it where data is two places wide or less.

    Seen in torch 2.13: the gradient of the weights, with a depth of 2, or with a width of 1 and a stride of 2. What is padded
    beforehand, and not by the convolution, comes out right; data of such a size is small, so that costs nothing that matters.
    """

    weight: Tensor
    bias: Tensor | None
    stride: Any
    padding: Any

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, out_channels, *size) for x of shape (B, channels, *size)."""
        out: Tensor
        if x.dtype != torch.bfloat16 or x.device.type != "cpu" or min(x.shape[2:]) > 2:
            out = super().forward(x)  # type: ignore[misc]
            return out
        around = [places for each in reversed(self.padding) for places in (each, each)]
        function = getattr(nn.functional, f"conv{x.ndim - 2}d")
        out = function(nn.functional.pad(x, around), self.weight, self.bias, self.stride)
        return out


class Conv1d(_Exact, nn.Conv1d):
    """Over sequences."""


class Conv2d(Packable, _Exact, nn.Conv2d):
    """Over images."""

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, out_channels, *size) for x of shape (B, channels, *size)."""
        if self.packed is not None and self.takes_blocks(x):
            return self.packed.convolve(x, self)
        if winograd.fits(x, self):
            return winograd.convolve(x, self.weight, self.bias)
        if self._is_a_product(x):
            return affine_rows(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)
        return super().forward(x)

    def _is_a_product(self, x: Tensor) -> bool:
        """Whether it reads single places that lie as rows in memory; in float32 oneDNN's gradients of such take thrice as long."""
        single = (self.kernel_size, self.stride, self.padding) == ((1, 1), (1, 1), (0, 0)) and self.groups == 1
        rows = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
        return single and rows and x.dtype == self.weight.dtype == torch.float32 and x.device.type == "cpu"


class Conv3d(_Exact, nn.Conv3d):
    """Over videos."""


CONVOLUTIONS: dict[int, type[Conv1d | Conv2d | Conv3d]] = {1: Conv1d, 2: Conv2d, 3: Conv3d}


def convolution(
    dims: int,
    channels: int,
    out_channels: int,
    size: int = 3,
    stride: int = 1,
    zero: bool = False,
    padded: bool = True,
) -> nn.Module:
    """A convolution over `dims` dimensions that keeps sizes, or divides them by the stride and rounds up.

    Args:
        dims: 1, 2 or 3.
        channels: Channels that enter.
        out_channels: Channels that leave.
        size: Places that it covers in each dimension, an odd number.
        stride: What sizes are divided by.
        zero: Whether it gives zero until trained.
        padded: Whether zeros stand around the data; without them sizes fall by `size` - 1 before they are divided.
    """
    layer = CONVOLUTIONS[dims](channels, out_channels, size, stride, padding=size // 2 if padded else 0)
    if zero:
        nn.init.zeros_(layer.weight)
        assert layer.bias is not None
        nn.init.zeros_(layer.bias)
    return layer
