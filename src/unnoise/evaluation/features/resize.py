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
        pixels: Shape (B, C, H, W), in [0, 255], any dtype.
        height: Rows wanted.
        width: Columns wanted.
        rule: See `Rule`.
        whole: Whether values are rounded to whole numbers, as Pillow does for pictures of bytes.

    Returns:
        Shape (B, C, height, width), float32 in [0, 255]; the values themselves where the size is the same.
    """
    pixels = pixels.to(torch.float32)
    if pixels.shape[2:] == (height, width):
        return pixels
    if rule == "tensorflow":
        pixels = _tensorflow(_tensorflow(pixels, height, 2), width, 3)
        return pixels.round() if whole else pixels
    for size in ((pixels.shape[2], width), (height, width)) if whole else ((height, width),):
        pixels = functional.interpolate(pixels, size, mode=rule, antialias=True, align_corners=False)
        pixels = pixels.clamp(0, 255)  # bicubic weights are negative in places
        pixels = pixels.round() if whole else pixels  # after each axis, as Pillow does
    return pixels


def _tensorflow(pixels: Tensor, size: int, axis: int) -> Tensor:
    """Linear interpolation along one axis at the places i * old / new, the last pixel repeated."""
    last = pixels.shape[axis] - 1
    place = torch.arange(size, dtype=torch.float32) * (pixels.shape[axis] / size)
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


def in_colour(pixels: Tensor) -> Tensor:
    """Pictures of three channels: grey ones repeated, transparent ones laid on white.

    Args:
        pixels: Shape (B, C, H, W) with 1, 3 or 4 channels, in [0, 255].

    Returns:
        Shape (B, 3, H, W), float32 in [0, 255]; of transparent ones rounded to whole numbers, as a file of them would be.
    """
    pixels = pixels.to(torch.float32)
    if pixels.shape[1] == 4:
        cover = pixels[:, 3:] / 255
        return (pixels[:, :3] * cover + 255 * (1 - cover)).round()
    return pixels.expand(-1, 3, -1, -1)
