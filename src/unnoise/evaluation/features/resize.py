"""How pictures are brought to the size that a network looks at: each rule by its name, because the name decides the score.

A distance moves by several points when pictures are made smaller by another rule, or by a filter that does not cover what
lies between the pixels that are kept (On Aliased Resizing, Parmar et al., 2022, Table 1, https://arxiv.org/abs/2104.11222).
So that the rule stands in the extractor's hash and in the report.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Rule = Literal["bicubic", "bilinear", "tensorflow"]
"""Bicubic and bilinear are Pillow's, which widen the filter when a picture becomes smaller; "tensorflow" is bilinear as
`resize_bilinear` of TensorFlow 1 does it: no wider filter, and the pixels of both grids aligned at their corner."""


def resized(pixels: Tensor, height: int, width: int, rule: Rule, whole: bool = False) -> Tensor:
    """Pictures of another size.

    Args:
        pixels: Shape (B, C, H, W), in [0, 255], any dtype; whole numbers if `whole`.
        height: Rows wanted.
        width: Columns wanted.
        rule: See `Rule`.
        whole: Whether it is done as Pillow does it for pictures of bytes, to the bit: with weights of 22 binary places, and
            rounded to whole numbers after each axis. Not for "tensorflow", which knows no bytes.

    Returns:
        Shape (B, C, height, width), float32 in [0, 255]; the values themselves where the size is the same.
    """
    pixels = pixels.to(torch.float32)
    if pixels.shape[2:] == (height, width):
        return pixels
    if rule == "tensorflow":
        assert not whole
        return _tensorflow(_tensorflow(pixels, height, 2), width, 3)
    if whole:
        pixels = _pillow(pixels.mT, width, rule).mT
        return _pillow(pixels, height, rule).to(torch.float32)
    pixels = functional.interpolate(pixels, (height, width), mode=rule, antialias=True, align_corners=False)
    return pixels.clamp(0, 255)  # bicubic weights are negative in places


def _pillow(pixels: Tensor, size: int, rule: Literal["bicubic", "bilinear"]) -> Tensor:
    """Whole numbers of another number of rows, as `ImagingResample` of Pillow finds them; float64."""
    if pixels.shape[2] == size:
        return pixels
    weights = pillow_weights(pixels.shape[2], size, rule) @ pixels.to(torch.float64)  # exact: below 2 ** 53
    return ((weights + 2**21) / 2**22).floor().clamp(0, 255)


def pillow_weights(before: int, after: int, rule: Literal["bicubic", "bilinear"]) -> Tensor:
    """What each new row takes of each old one, times 2 ** 22 and rounded; shape (after, before), float64.

    The filter is Keys' cubic with a = -1/2, or a triangle; where rows become fewer it is widened to cover them all.

    References:
        Cubic Convolution Interpolation for Digital Image Processing (Keys, 1981), Equation 15,
        https://doi.org/10.1109/TASSP.1981.1163711; Pillow, src/libImaging/Resample.c

    Args:
        before: Old rows.
        after: New rows.
        rule: The filter.
    """
    wide = max(before / after, 1.0)
    middle = (torch.arange(after, dtype=torch.float64)[:, None] + 0.5) * (before / after)
    row = torch.arange(before, dtype=torch.float64)
    reach = (2 if rule == "bicubic" else 1) * wide
    inside = (row >= (middle - reach + 0.5).trunc()) & (row < (middle + reach + 0.5).trunc())
    x = ((row + 0.5 - middle) / wide).abs()
    if rule == "bicubic":
        far = -0.5 * (((x - 5) * x + 8) * x - 4)
        weights = torch.where(x < 1, (1.5 * x - 2.5) * x**2 + 1, torch.where(x < 2, far, 0.0))
    else:
        weights = (1 - x).clamp(min=0)
    weights = torch.where(inside, weights, 0.0)
    weights = weights / weights.sum(1, keepdim=True) * 2**22
    return (weights.abs() + 0.5).floor() * weights.sign()


def _tensorflow(pixels: Tensor, size: int, axis: int) -> Tensor:
    """Linear interpolation along one axis at the places i * old / new, the last pixel repeated."""
    last = pixels.shape[axis] - 1
    place = torch.arange(size, dtype=torch.float32, device=pixels.device) * (pixels.shape[axis] / size)
    before = place.floor()
    share = (place - before).reshape(-1, *[1] * (3 - axis))
    low = before.long().clamp(max=last)
    high = (low + 1).clamp(max=last)
    start = pixels.index_select(axis, low)
    return start + (pixels.index_select(axis, high) - start) * share


def centre_crop(pixels: Tensor, size: int) -> Tensor:
    """The square in the middle, shape (B, C, size, size), of pictures that are at least so large."""
    top, left = (pixels.shape[2] - size) // 2, (pixels.shape[3] - size) // 2
    return pixels[:, :, top : top + size, left : left + size]


def in_colour(pixels: Tensor, whole: bool = True) -> Tensor:
    """Pictures of three channels: grey ones repeated, transparent ones laid on white.

    Args:
        pixels: Shape (B, C, H, W) with 1, 3 or 4 channels, in [0, 255].
        whole: Whether transparent ones are rounded to whole numbers, as a file of them would be; gradients end there.

    Returns:
        Shape (B, 3, H, W), float32 in [0, 255].
    """
    pixels = pixels.to(torch.float32)
    if pixels.shape[1] == 4:
        cover = pixels[:, 3:] / 255
        laid = pixels[:, :3] * cover + 255 * (1 - cover)
        return laid.round() if whole else laid
    return pixels.expand(-1, 3, -1, -1)
