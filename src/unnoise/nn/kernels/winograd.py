"""Convolutions of 3 x 3 places in float32 on a CPU, with a quarter of the multiplications (Winograd's way).

A processor multiplies float32 at one rate whatever it is for, so what is left to save is multiplications. With a quarter of them a
convolution takes half the time there and back, and by the points that are taken here it is about as exact as the plain sum.

References:
    Fast Algorithms for Convolutional Neural Networks (Lavin and Gray, 2015), Section 4, https://arxiv.org/abs/1509.09308
    Error Analysis and Improving the Accuracy of Winograd Convolution (Barabasz et al., 2018), https://arxiv.org/abs/1803.10986
"""

from __future__ import annotations

from collections.abc import Iterator
from ctypes import CDLL, c_int, c_int64
from typing import Any

import torch
from torch import Tensor, nn

from .library import followed, library, pointer

_TILE, _PLACES, _LANES = 4, 36, 8  # as in winograd.cpp
_AT_ONCE = 32 * 2**20
"""Bytes of transformed tiles that are worked on together: what a cache shared by several cores holds."""
_FEWEST_CHANNELS = 32
_FEWEST_TILES, _FEWEST_OF_MANY, _MANY = 32, 64, 2**17
"""Tiles from which transforming the weights is paid back: of those that a cache holds, and of more."""
_LEAST_USED = 0.7
"""The share of the places of all tiles that must lie in the picture."""


def fits(x: Tensor, layer: nn.Conv2d) -> bool:
    """Whether a layer's results on a batch are had faster this way, and nobody follows what is computed.

    Args:
        x: Shape (B, channels, H, W).
        layer: A convolution.
    """
    if x.ndim != 4 or x.dtype != torch.float32 or layer.weight.dtype != torch.float32 or x.device.type != "cpu":
        return False
    same = (layer.kernel_size, layer.stride, layer.padding, layer.dilation) == ((3, 3), (1, 1), (1, 1), (1, 1))
    channels = layer.in_channels, layer.out_channels
    wide = all(each % _LANES == 0 and each >= _FEWEST_CHANNELS for each in channels)
    if not (same and wide and layer.groups == 1 and layer.padding_mode == "zeros") or not x.numel():
        return False
    height, width = x.shape[2:]
    tiles = len(x) * _across(height) * _across(width)
    used = height * width / (_TILE**2 * _across(height) * _across(width))
    laid_out = x.is_contiguous(memory_format=torch.channels_last)
    fewest = _FEWEST_TILES if channels[0] * channels[1] <= _MANY else _FEWEST_OF_MANY
    return tiles >= fewest and used >= _LEAST_USED and laid_out and not followed() and library() is not None


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution of a batch that `fits`, shape (B, out, H, W), for weights of shape (out, in, 3, 3)."""
    out: Tensor = _Convolution.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return out


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        return _convolved(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight, bias = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        if torch.is_grad_enabled():  # somebody wants to differentiate once more
            sizes = None if bias is None else bias.shape
            parts = torch.ops.aten.convolution_backward(
                gradient, x, weight, sizes, (1, 1), (1, 1), (1, 1), False, (0, 0), 1, wanted
            )
            return tuple(part if asked else None for part, asked in zip(parts, wanted, strict=True))  # type: ignore[return-value]
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        return (
            _convolved(gradient, weight, None, back=True) if wanted[0] else None,
            _weight_gradient(gradient, x) if wanted[1] else None,
            gradient.sum((0, 2, 3)) if wanted[2] else None,
        )


def _convolved(x: Tensor, weight: Tensor, bias: Tensor | None, back: bool = False) -> Tensor:
    """A convolution, or the one that brings gradients back from its results: shape (B, out or in, H, W)."""
    weight = weight.contiguous()
    transformed = weight.new_empty(_PLACES, *weight.shape[:2])
    _kernels().winograd_weigh(
        pointer(weight), pointer(transformed), *_sizes(*weight.shape[:2]), c_int(back), _threads()
    )
    return _mixed(x, transformed if back else transformed.mT, bias)


def _mixed(x: Tensor, transformed: Tensor, bias: Tensor | None) -> Tensor:
    """The results of transformed weights of shape (36, channels of x, channels that leave)."""
    samples, channels, height, width = x.shape
    leaving, kernels = transformed.shape[2], _kernels()
    out = x.new_empty(samples, height, width, leaving).permute(0, 3, 1, 2)
    for first, tiles in _blocks(x, channels + leaving):
        seen, mixed = x.new_empty(_PLACES, tiles, channels), x.new_empty(_PLACES, tiles, leaving)
        kernels.winograd_see(pointer(x), pointer(seen), *_sizes(first, tiles, height, width, channels), _threads())
        torch.bmm(seen, transformed, out=mixed)
        sizes = _sizes(first, tiles, height, width, leaving)
        kernels.winograd_gather(pointer(mixed), pointer(bias), pointer(out), *sizes, _threads())
    return out


def _weight_gradient(gradient: Tensor, x: Tensor) -> Tensor:
    """Shape (channels of the gradient, channels of x, 3, 3)."""
    channels, leaving, kernels = x.shape[1], gradient.shape[1], _kernels()
    total = x.new_zeros(_PLACES, leaving, channels)
    for first, tiles in _blocks(x, channels + leaving):
        seen, spread = x.new_empty(_PLACES, tiles, channels), x.new_empty(_PLACES, tiles, leaving)
        places = first, tiles, *x.shape[2:]
        kernels.winograd_see(pointer(x), pointer(seen), *_sizes(*places, channels), _threads())
        kernels.winograd_spread(pointer(gradient), pointer(spread), *_sizes(*places, leaving), _threads())
        torch.baddbmm(total, spread.mT, seen, out=total)
    out = x.new_empty(leaving, channels, 3, 3)
    kernels.winograd_unweigh(pointer(total), pointer(out), *_sizes(leaving, channels), _threads())
    return out


def _across(size: int) -> int:
    return -(-size // _TILE)


def _blocks(x: Tensor, channels: int) -> Iterator[tuple[int, int]]:
    """The first tile of each block of tiles, and how many it has."""
    whole = len(x) * _across(x.shape[2]) * _across(x.shape[3])
    some = max(_FEWEST_TILES, _AT_ONCE // (4 * _PLACES * channels) // 32 * 32)
    for first in range(0, whole, some):
        yield first, min(some, whole - first)


def _sizes(*sizes: int) -> tuple[c_int64, ...]:
    return tuple(map(c_int64, sizes))


def _threads() -> c_int:
    return c_int(torch.get_num_threads())


def _kernels() -> CDLL:
    found = library()
    assert found is not None
    return found
