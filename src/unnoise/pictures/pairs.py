"""Images beside what they are nearest to, so that an eye can judge whether they are copies."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ..errors import BadOption, ShapeError
from . import style
from .grid import to_images

_SMALLEST, _LARGEST = 96, 192  # pixels that the longer side of an image has at least, about, and at most
_WIDTH = 960  # of the sheet, where the number of columns is free
_SEAM = 3  # pixels between the images of one pair
_HEADINGS = ("sample", "nearest", "second")
_LINES = 3


def closest_pairs(
    samples: Tensor,
    nearest: Tensor,
    captions: Sequence[str],
    second: Tensor | None = None,
    *,
    columns: int | None = None,
    headings: Sequence[str] = _HEADINGS,
) -> Image.Image:
    """Each sample beside the image that it is nearest to, with its caption under both, pair after pair.

    Small images are enlarged without blurring, large ones made smaller. See `to_images` for channels.

    Args:
        samples: Shape (N, C, H, W), uint8, or floats in [0, 255].
        nearest: As many, of any size.
        captions: One for each, such as the distance; long ones take up to three lines.
        second: What is second nearest, as many, drawn as a third image.
        columns: Pairs in a row; by default, as many as a page is wide.
        headings: Over the images of the first row: of the sample, of the nearest, and of the second.

    Raises:
        ShapeError: There is no pair, or not as many images on one side as on the other.
        BadOption: There are not as many captions, too few headings, or `columns` is below 1.
        DataError: Some pixels are not finite.
    """
    sides = [samples, nearest] if second is None else [samples, nearest, second]
    if len(samples) == 0 or any(len(side) != len(samples) for side in sides):
        raise ShapeError(
            f"expected as many images as samples, at least one, got {' and '.join(str(len(s)) for s in sides)}"
        )
    if len(captions) != len(samples):
        raise BadOption(f"captions: expected {len(samples)}, one for each sample, got {len(captions)}")
    if len(headings) < len(sides) or (columns is not None and columns < 1):
        raise BadOption(f"headings: expected {len(sides)}, and columns at least 1, got {len(headings)} and {columns}")
    pairs = list(zip(*([_sized(picture) for picture in to_images(_batch(side))] for side in sides), strict=True))
    widths = [
        max(*(pair[i].width for pair in pairs), style.text_width(headings[i], style.TEXT)) for i in range(len(sides))
    ]
    width, height = sum(widths) + _SEAM * (len(sides) - 1), max(image.height for pair in pairs for image in pair)
    gap = 2 * style.GAP
    columns = max(1, (_WIDTH - gap) // (width + gap)) if columns is None else columns
    columns = min(columns, len(pairs))
    words = [style.wrapped(caption, style.TEXT, width, _LINES) for caption in captions]
    line = style.line_height(style.TEXT)
    rows = [range(start, min(start + columns, len(pairs))) for start in range(0, len(pairs), columns)]
    tops = [style.GAP + line + 2]
    for row in rows:
        tops.append(tops[-1] + height + 5 + max(len(words[i]) for i in row) * line + style.GAP)
    sheet = Image.new("RGB", (gap + columns * (width + gap), tops[-1]), style.PAPER)
    for i, pair in enumerate(pairs):
        x, y = gap + i % columns * (width + gap), tops[i // columns]
        for j, text in enumerate(words[i]):
            style.write(sheet, (x + width / 2, y + height + 5 + j * line), text, anchor="ma")
        for image, space, heading in zip(pair, widths, headings, strict=False):
            if i < columns:
                style.write(sheet, (x + space / 2, y - 4), heading, style.TEXT, style.MUTED, "md")
            _paste(sheet, image, x + (space - image.width) // 2, y + (height - image.height) // 2)
            x += space + _SEAM
    return sheet


def _batch(images: Tensor) -> Tensor:
    return images if torch.is_floating_point(images) or images.dtype == torch.uint8 else images.double()


def _sized(picture: Image.Image) -> Image.Image:
    """The picture on paper, enlarged by a whole number, or made smaller."""
    picture, side = style.on_paper(picture), max(picture.size)
    if side > _LARGEST:
        size = (max(1, round(each * _LARGEST / side)) for each in picture.size)
        return picture.resize(tuple(size), Image.Resampling.LANCZOS)  # type: ignore[arg-type]
    scale = max(1, round(_SMALLEST / side))
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)


def _paste(sheet: Image.Image, image: Image.Image, x: int, y: int) -> None:
    """With a hairline around it, which a white image on white paper needs."""
    sheet.paste(image, (x, y))
    ImageDraw.Draw(sheet).rectangle((x - 1, y - 1, x + image.width, y + image.height), outline=style.FRAME)
