"""Batches of images as one picture."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from ..errors import BadOption, DataError, ShapeError
from . import style

_CAPTION_LINES = 3
_READABLE = 80  # pixels that the longer side of a cell should have
_CAPTIONED = 112  # the same where words stand under it


def to_images(images: Tensor) -> list[Image.Image]:
    """One picture for each image of a batch, pixel by pixel.

    One channel gives grey, three RGB, four RGBA. Any other number of channels is no colour: the channels stand side by
    side in grey, the first on the left, so the picture is C times as wide.

    Args:
        images: Shape (N, C, H, W), uint8, or floats in [0, 255], which are rounded and clamped.

    Raises:
        ShapeError: The batch has another shape.
        DataError: Some pixels are not finite.
    """
    if images.ndim != 4 or 0 in images.shape[1:]:
        raise ShapeError(f"expected images of shape (N, C, H, W), got {tuple(images.shape)}")
    images = images.detach().cpu()
    if images.dtype != torch.uint8:
        bad = ~torch.isfinite(images).flatten(1).all(1)
        if bad.any():
            raise DataError(f"{int(bad.sum())} of {len(images)} images hold NaN or infinity, so they cannot be drawn")
        images = images.double().round().clamp(0, 255).to(torch.uint8)
    if images.shape[1] in (1, 3, 4):
        pixels = images.movedim(1, -1)
        return [Image.fromarray((image[..., 0] if image.shape[-1] == 1 else image).numpy().copy()) for image in pixels]
    num, channels, height, width = images.shape
    rows = images.permute(0, 2, 1, 3).reshape(num, height, channels * width)
    return [Image.fromarray(row.numpy()) for row in rows]


def image_grid(
    images: Tensor,
    columns: int | None = None,
    scale: int | None = None,
    gap: int = 4,
    captions: Sequence[str] | None = None,
) -> Image.Image:
    """A batch as one RGB picture, row by row, enlarged without blurring so that 8x8 digits can be seen.

    Pixel (0, 0) of the first image stands at (gap, gap). Transparency shows white paper. See `to_images` for channels.

    Args:
        images: Shape (N, C, H, W), uint8, or floats in [0, 255].
        columns: Images in a row; by default, the number nearest to a square that leaves the fewest cells empty.
        scale: Screen pixels for each pixel, both ways; by default, what makes an image about 80 pixels large.
        gap: Pixels between the images and around them.
        captions: A line under each image; long ones take up to three lines.

    Raises:
        ShapeError: The batch is empty or has another shape.
        BadOption: `columns`, `scale` or `gap` is too small, or the captions are not as many as the images.
        DataError: Some pixels are not finite.
    """
    pictures = [style.on_paper(picture) for picture in to_images(images)]
    if not pictures:
        raise ShapeError("expected at least one image, got none")
    if captions is not None and len(captions) != len(pictures):
        raise BadOption(f"captions: expected {len(pictures)}, one for each image, got {len(captions)}")
    readable = _READABLE if captions is None else _CAPTIONED
    scale = max(1, round(readable / max(images.shape[-2:]))) if scale is None else scale
    columns = _columns(len(pictures)) if columns is None else columns
    for name, value, low in (("columns", columns, 1), ("scale", scale, 1), ("gap", gap, 0)):
        if value < low:
            raise BadOption(f"{name}: must be at least {low}, got {value}")
    columns = min(columns, len(pictures))
    width, height = pictures[0].width * scale, pictures[0].height * scale
    words = [style.wrapped(text, style.TEXT, width, _CAPTION_LINES) for text in captions or ()]
    line = style.line_height(style.TEXT)
    rows = [words[start : start + columns] for start in range(0, len(pictures), columns)]
    below = [max((len(lines) for lines in row), default=0) * line + (6 if row else 0) for row in rows]
    tops = [gap + i * (height + gap) + sum(below[:i]) for i in range(len(rows) + 1)]
    sheet = Image.new("RGB", (gap + columns * (width + gap), tops[-1]), style.PAPER)
    for i, picture in enumerate(pictures):
        x, y = gap + i % columns * (width + gap), tops[i // columns]
        sheet.paste(picture.resize((width, height), Image.Resampling.NEAREST), (x, y))
        for j, text in enumerate(words[i] if words else ()):
            style.write(sheet, (x + width / 2, y + height + 4 + j * line), text, anchor="ma")
    return sheet


def _columns(num: int) -> int:
    square = math.ceil(math.sqrt(num))
    return min(range(square, math.ceil(2 * math.sqrt(num)) + 1), key=lambda columns: (-num % columns, columns))
