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

from .library import followed, library, passing, pointer

_TILE, _PLACES, _LANES = 4, 36, 8  # as in winograd.cpp
_PAGE, _LINE = 1024, 16  # numbers
_AT_ONCE = 32 * 2**20
"""Bytes of transformed tiles that are worked on together: what a cache shared by several cores holds."""
_HELD = 40 * 2**20
"""Bytes of transformed weights that are held: all of most layers, and panels of the largest one after another."""
_FEWEST_CHANNELS = 32
_FEWEST_TILES = 32
"""Tiles from which transforming the weights is paid back."""
_LEAST_USED = 0.7
"""The share of the places of all tiles that must lie in the picture."""


def fits(x: Tensor, layer: nn.Conv2d) -> bool:
    """Whether a layer's results on a batch are had faster this way, and nobody follows what is computed.

    Args:
        x: Shape (B, channels, H, W).
        layer: A convolution.
    """
    here = x.device.type == "cpu" and x.is_contiguous(memory_format=torch.channels_last)
    return here and pays(x, layer) and not followed() and library() is not None


def pays(x: Tensor, layer: nn.Conv2d) -> bool:
    """Whether a layer and a batch are of such kinds and sizes that this way is faster, wherever they lie."""
    alike = x.dtype == layer.weight.dtype == torch.float32 and x.device == layer.weight.device
    if x.ndim != 4 or not alike:
        return False
    same = (layer.kernel_size, layer.stride, layer.padding, layer.dilation) == ((3, 3), (1, 1), (1, 1), (1, 1))
    channels = layer.in_channels, layer.out_channels
    wide = all(each % _LANES == 0 and each >= _FEWEST_CHANNELS for each in channels)
    if not (same and wide and layer.groups == 1 and layer.padding_mode == "zeros") or not x.numel():
        return False
    height, width = x.shape[2:]
    tiles = len(x) * _across(height) * _across(width)
    used = height * width / (_TILE**2 * _across(height) * _across(width))
    return tiles >= _FEWEST_TILES and used >= _LEAST_USED


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution of a batch that `fits`, shape (B, out, H, W), for weights of shape (out, in, 3, 3)."""
    out: Tensor = _Convolution.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return out


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        return convolved(x, weight, bias)

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
            convolved(gradient, weight, None, back=True) if wanted[0] else None,
            weight_gradient(gradient, x) if wanted[1] else None,
            gradient.sum((0, 2, 3)) if wanted[2] else None,
        )


def convolved(x: Tensor, weight: Tensor, bias: Tensor | None, back: bool = False, out: Tensor | None = None) -> Tensor:
    """A convolution, or the one that brings gradients back from its results: shape (B, out or in, H, W).

    Here and in `weight_gradient` a batch without memory costs nothing.
    """
    out = room(x, weight.shape[1 if back else 0]) if out is None else out
    if x.device.type == "meta":
        return out
    weight = weight.contiguous()
    _, channels, height, width = x.shape
    kernels, threads = _kernels(), torch.get_num_threads()
    rows, panel = kernels.winograd_rows(), kernels.winograd_panel()
    held = max(1, min(-(-out.shape[1] // panel), _HELD // (4 * _PLACES * channels * panel)))
    weighed = passing(x, held, _PLACES, channels, panel)
    workspace = passing(x, threads, kernels.winograd_workspace())
    for first, tiles in _blocks(x, channels):
        seen = _planes(x, -(-tiles // rows) * rows, channels)
        tensors = map(pointer, (x, weight, bias, out, seen, weighed, workspace))
        sizes = _sizes(first, tiles, height, width, channels, out.shape[1], seen.stride(0), held)
        kernels.winograd_convolve(*tensors, *sizes, *map(c_int, (first == 0, back, threads)))
    return out


def room(x: Tensor, channels: int) -> Tensor:
    """Where results of that many channels can be written.

    What stays is asked for before what goes again: then the memory of what goes is in one piece, and not between what stays.
    """
    samples, _, height, width = x.shape
    return x.new_empty(samples, height, width, channels).permute(0, 3, 1, 2)


def weight_gradient(gradient: Tensor, x: Tensor) -> Tensor:
    """The gradient of the weights, shape (out, in, 3, 3), for that of the results and what entered."""
    channels, leaving = x.shape[1], gradient.shape[1]
    out = x.new_empty(leaving, channels, 3, 3)
    if x.device.type == "meta":
        return out
    kernels, threads = _kernels(), c_int(torch.get_num_threads())
    total = x.new_zeros(_PLACES, leaving, channels)
    for first, tiles in _blocks(x, channels + leaving):
        # A row of no tile, so that planes are no power of two apart, and yet one piece for torch's product of them.
        seen, spread = (passing(x, _PLACES, tiles + 1, each) for each in (channels, leaving))
        for transform, of, to in ((kernels.winograd_see, x, seen), (kernels.winograd_spread, gradient, spread)):
            to[:, tiles] = 0
            sizes = _sizes(first, tiles, *x.shape[2:], to.shape[2], to.stride(0))
            transform(pointer(of), pointer(to), *sizes, threads)
        torch.baddbmm(total, spread.mT, seen, out=total)
    kernels.winograd_unweigh(pointer(total), pointer(out), *_sizes(leaving, channels), threads)
    return out


def _planes(like: Tensor, rows: int, columns: int) -> Tensor:
    """Room for the places of transformed tiles, shape (36, rows, columns).

    A transform writes all 36 at once. A power of two apart they would fall on the same few lines of a cache.
    """
    apart = -(-rows * columns // _PAGE) * _PAGE + _LINE
    return passing(like, _PLACES, apart)[:, : rows * columns].view(_PLACES, rows, columns)


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


def _kernels() -> CDLL:
    found = library()
    assert found is not None
    for number in (found.winograd_rows, found.winograd_panel, found.winograd_workspace):
        number.restype = c_int64
    return found
